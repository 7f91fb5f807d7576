"""Which TCP ports are being listened on: one question to the kernel answers for every workload.

The kernel's socket diagnostics (``NETLINK_SOCK_DIAG``) list listening sockets only, so the cost follows the
number of listeners and not of connections: tens of microseconds, cheap enough to ask 20 times a second.
Without that interface, ``/proc/net/tcp`` and ``tcp6`` are read. No connection is made, so an application
never sees a probe.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_REQUEST_DUMP = 0x301
_DONE = 3
_ERROR = 2
_LISTEN = 10

# nlmsghdr; inet_diag_req_v2: family, protocol, ext, pad, states, sockid (48 bytes)
_HEADER = struct.Struct("=LHHLL")
_REQUEST = struct.Struct("=BBBBL48s")
# inet_diag_msg starts: family, state, timer, retrans; sport, dport (network order), source, destination
_MESSAGE = struct.Struct("!BBBBHH16s16s")

_WILDCARD4 = "0.0.0.0"
_WILDCARD6 = "::"


@dataclass(frozen=True, slots=True)
class Listeners:
    """All TCP listeners of this network namespace at one moment: pairs of address and port.

    IPv4-mapped addresses are given as IPv4.
    """

    pairs: frozenset[tuple[str, int]]

    def has(self, address: str, port: int, *, wildcard: bool = False) -> bool:
        """Whether somebody listens at ``address``; with ``wildcard`` also at 0.0.0.0 or ``::``.

        Under eBPF capture ask for the app address without ``wildcard`` (the host's own services listen
        there); under explicit capture for 127.0.0.1 with it.
        """
        if (address, port) in self.pairs:
            return True
        return wildcard and ((_WILDCARD4, port) in self.pairs or (_WILDCARD6, port) in self.pairs)


def fetch_listeners() -> Listeners:
    """What listens now."""
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as channel:
            channel.settimeout(2.0)
            pairs = frozenset((*_dump(channel, socket.AF_INET), *_dump(channel, socket.AF_INET6)))
    except OSError:
        pairs = frozenset(_from_proc(Path("/proc/net")))
    return Listeners(pairs)


def _dump(channel: socket.socket, family: int) -> Iterator[tuple[str, int]]:
    body = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0, 1 << _LISTEN, bytes(48))
    header = _HEADER.pack(_HEADER.size + len(body), _SOCK_DIAG_BY_FAMILY, _REQUEST_DUMP, family, 0)
    channel.send(header + body)
    while True:
        answer = channel.recv(1 << 18)
        offset = 0
        while offset + _HEADER.size <= len(answer):
            length, kind, _, sequence, _ = _HEADER.unpack_from(answer, offset)
            if length < _HEADER.size:
                raise OSError("the kernel sent a malformed netlink message")
            if sequence == family and kind == _DONE:
                return
            if kind == _ERROR:
                raise OSError("the kernel refused to list sockets")
            if sequence == family and kind == _SOCK_DIAG_BY_FAMILY:
                yield _listener(answer, offset + _HEADER.size)
            offset += (length + 3) & ~3


def _listener(answer: bytes, offset: int) -> tuple[str, int]:
    family, _, _, _, port, _, source, _ = _MESSAGE.unpack_from(answer, offset)
    if family == socket.AF_INET:
        return socket.inet_ntop(socket.AF_INET, source[:4]), port
    return _text6(source), port


def _text6(address: bytes) -> str:
    if address[:12] == bytes(10) + b"\xff\xff":
        return socket.inet_ntop(socket.AF_INET, address[12:])
    return socket.inet_ntop(socket.AF_INET6, address)


def _from_proc(folder: Path) -> Iterator[tuple[str, int]]:
    for name in ("tcp", "tcp6"):
        table = folder / name
        if not table.exists():
            continue
        for line in table.read_text().splitlines()[1:]:
            fields = line.split()
            if len(fields) > 3 and fields[3] == "0A":
                yield _parse_proc(fields[1])


def _parse_proc(local: str) -> tuple[str, int]:
    """``0100007F:1F90`` as address and port: words of the address in host order, hexadecimal."""
    text, _, port = local.partition(":")
    raw = b"".join(struct.pack("=L", int(text[i : i + 8], 16)) for i in range(0, len(text), 8))
    address = socket.inet_ntop(socket.AF_INET, raw) if len(raw) == 4 else _text6(raw)
    return address, int(port, 16)
