"""The structures that the programs share with us (``bpf/lib/maps.h``), in Python.

Pure. Addresses and ports are in network order there and text and numbers here. A test compares every size and
offset with the compiled objects' own type information.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Self

from retia.model.mesh import Protocol


class Role(IntEnum):
    WORKLOAD = 1
    PROXY = 2
    AGENT = 3


class MemberFlag(IntFlag):
    NONE = 0
    FAIL_OPEN = 1


class Listener(IntEnum):
    """Which of a proxy's outbound listeners takes a connection."""

    HTTP = 1
    AUTO = 2
    TCP = 3


def listener_of(protocol: Protocol) -> Listener:
    """The listener for a port that speaks ``protocol``."""
    if protocol.is_http:
        return Listener.HTTP
    return Listener.AUTO if protocol is Protocol.AUTO else Listener.TCP


STRUCTS: dict[str, tuple[tuple[str, str], ...]] = {
    "member": (
        ("role", "I"),
        ("flags", "I"),
        ("address", "4s"),
        ("http_port", "2s"),
        ("auto_port", "2s"),
        ("tcp_port", "2s"),
        ("dns_port", "2s"),
    ),
    "address_port": (("address", "4s"), ("port", "2s"), ("zero", "2s")),
    "destination": (("fallback_address", "4s"), ("fallback_port", "2s"), ("listener", "B"), ("zero", "B")),
    "grant": (("proxy", "Q"), ("address", "4s"), ("zero", "4s")),
    "tuple": (("client", "4s"), ("server", "4s"), ("client_port", "2s"), ("server_port", "2s")),
    "settings": (("v6only", "I"), ("zero", "I"), ("digest", "32s")),
}
"""Field names and :mod:`struct` codes, in order and without padding."""


def _struct(name: str) -> struct.Struct:
    return struct.Struct("=" + "".join(code for _, code in STRUCTS[name]))


MEMBER = _struct("member")
ADDRESS_PORT = _struct("address_port")
DESTINATION = _struct("destination")
GRANT = _struct("grant")
SETTINGS = _struct("settings")
CGROUP_ID = struct.Struct("=Q")
WORD = struct.Struct("=I")
PRESENT = WORD.pack(1)


def pack_address(address: str) -> bytes:
    """An IPv4 address in network order; ValueError for anything else."""
    try:
        return socket.inet_pton(socket.AF_INET, address)
    except OSError as error:
        raise ValueError(f"{address!r} is not an IPv4 address") from error


def pack_port(port: int) -> bytes:
    """A port (0..65535) in network order; ValueError outside."""
    if not 0 <= port <= 65535:
        raise ValueError(f"port is {port}; it must be 0 to 65535")
    return port.to_bytes(2, "big")


def pack_address_port(address: str, port: int) -> bytes:
    """A key of ``destinations`` and ``open_ports``."""
    return ADDRESS_PORT.pack(pack_address(address), pack_port(port), b"\0\0")


def unpack_address_port(key: bytes) -> tuple[str, int]:
    """What :func:`pack_address_port` packed."""
    address, port, _ = ADDRESS_PORT.unpack(key)
    return socket.inet_ntop(socket.AF_INET, address), int.from_bytes(port, "big")


def pack_destination(protocol: Protocol, fallback: tuple[str, int] | None = None) -> bytes:
    """A value of ``destinations``."""
    address, port = fallback if fallback is not None else ("0.0.0.0", 0)
    return DESTINATION.pack(pack_address(address), pack_port(port), listener_of(protocol), 0)


def pack_grant(proxy: int, address: str) -> bytes:
    """A key of ``grants``: the proxy's cgroup id and the app address that it may reach."""
    return GRANT.pack(proxy, pack_address(address), bytes(4))


def unpack_grant(key: bytes) -> tuple[int, str]:
    """What :func:`pack_grant` packed."""
    proxy, address, _ = GRANT.unpack(key)
    return proxy, socket.inet_ntop(socket.AF_INET, address)


@dataclass(frozen=True, slots=True)
class Member:
    """Who lives in a cgroup: a value of ``members``. Addresses and ports matter for workloads only."""

    role: Role
    flags: MemberFlag = MemberFlag.NONE
    address: str = "0.0.0.0"
    http_port: int = 0
    auto_port: int = 0
    tcp_port: int = 0
    dns_port: int = 0

    def pack(self) -> bytes:
        ports = (self.http_port, self.auto_port, self.tcp_port, self.dns_port)
        return MEMBER.pack(self.role, self.flags, pack_address(self.address), *map(pack_port, ports))

    @classmethod
    def unpack(cls, value: bytes) -> Self:
        role, flags, address, *ports = MEMBER.unpack(value)
        numbers = (int.from_bytes(port, "big") for port in ports)
        return cls(Role(role), MemberFlag(flags), socket.inet_ntop(socket.AF_INET, address), *numbers)
