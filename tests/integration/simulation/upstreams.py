"""The other sides: servers at every address of a case, which say who they are and what they saw.

HTTP/1.1 and HTTP/2 are answered in JSON, anything else by one line of it; a client that says nothing hears
that line unasked. At a member's port 15006 mutual TLS comes first, as its proxy would take it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import h2.config
import h2.connection
import h2.events

from tests.simulation.case import Upstream
from tests.simulation.keys import MESH_ALPN, Keys
from tests.simulation.outcome import Seen

MESH_PORT = 15006
SILENCE_S = 0.15
READ_S = 15.0
REQUEST_ID = "x-sim-call"


@dataclass
class Record:
    """One request as it arrived."""

    label: str
    call: str
    seen: Seen


@dataclass
class Place:
    """Who is at an address."""

    label: str
    identity: str = ""
    """For mutual TLS; empty: this side has no proxy."""
    tls_name: str = ""
    """For TLS of its own; empty: plaintext."""


@dataclass
class Peer:
    """A connection: what its beginning told."""

    label: str
    server_name: str = ""
    alpn: str = ""


Respond = Callable[[Seen], Awaitable[tuple[int, dict[str, str], bytes]]]


class Upstreams:
    """All servers. :meth:`stage` says who stands where; servers once opened stay open."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._servers: dict[tuple[str, int], asyncio.Server] = {}
        self._names: dict[tuple[str, int], str] = {}
        self.places: dict[tuple[str, int], Place] = {}
        self.records: list[Record] = []
        self.behaviour = Upstream()
        self._attempts: Counter[str] = Counter()

    async def stage(self, places: dict[tuple[str, int], Place]) -> None:
        self.places = places
        for key, place in places.items():
            if key not in self._servers:
                await self._open(key, place)

    def forget(self) -> None:
        """Begin a new call."""
        self.records = []
        self._attempts.clear()

    async def close(self) -> None:
        for server in self._servers.values():
            server.close()

    async def _open(self, key: tuple[str, int], place: Place) -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError, EOFError, TimeoutError, ssl.SSLError):
                await self._serve(key, reader, writer)
            with contextlib.suppress(OSError, ssl.SSLError):
                writer.close()

        context = None
        if key[1] == MESH_PORT or place.tls_name:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*self._keys.leaf(place.tls_name or place.identity))
            context.sni_callback = lambda tls, name, _: self._choose(key, tls, name or "")
        self._servers[key] = await asyncio.start_server(serve, *key, ssl=context)

    def _choose(self, key: tuple[str, int], tls: ssl.SSLSocket | ssl.SSLObject, name: str) -> None:
        """The certificate of whoever stands here in this case."""
        place = self.places.get(key)
        if place is None:
            return
        if key[1] == MESH_PORT:
            tls.context = self._keys.server(place.identity, mutual=True, alpn=MESH_ALPN)
        else:
            tls.context = self._keys.server(place.tls_name, mutual=False, alpn=["h2", "http/1.1"])
        self._names[key] = name

    # -- one connection -------------------------------------------------------------------------------------

    async def _serve(
        self, key: tuple[str, int], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        place = self.places.get(key)
        if place is None:
            return
        peer = Peer(place.label)
        tls = writer.get_extra_info("ssl_object")
        if tls is not None:
            peer.server_name = self._names.get(key, "")
            peer.alpn = tls.selected_alpn_protocol() or ""
        try:
            async with asyncio.timeout(SILENCE_S):
                first = await reader.read(65536)
        except TimeoutError:
            await self._bytes(peer, b"", reader, writer)
            return
        if not first:
            return
        if first.startswith(b"PRI"):
            await self._http2(peer, first, reader, writer)
        elif first.startswith(b"*"):
            await self._redis(peer, first, reader, writer)
        elif first.split(b" ", 1)[0].isalpha() and b"HTTP/1" in first.split(b"\r\n", 1)[0]:
            await self._http1(peer, first, reader, writer)
        else:
            await self._bytes(peer, first, reader, writer)

    async def _bytes(
        self, peer: Peer, first: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.records.append(Record(peer.label, "", Seen(server_name=peer.server_name, alpn=peer.alpn)))
        said = {"label": peer.label, "server_name": peer.server_name, "alpn": peer.alpn, "bytes": len(first)}
        writer.write(json.dumps(said).encode() + b"\n")
        await writer.drain()
        async with asyncio.timeout(READ_S):
            while await reader.read(65536):
                pass

    async def _redis(
        self, peer: Peer, first: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Every command is answered with a text that tells who is there, and what was asked."""
        data = first
        while data:
            lines = data.decode().split("\r\n")
            words = lines[2::2]
            seen = Seen(words[0], words[1] if len(words) > 1 else "", server_name=peer.server_name)
            self.records.append(Record(peer.label, "", seen))
            said = {"label": peer.label, "method": seen.method, "path": seen.path}
            text = json.dumps({**said, "server_name": peer.server_name, "alpn": peer.alpn})
            writer.write(f"${len(text)}\r\n{text}\r\n".encode())
            await writer.drain()
            async with asyncio.timeout(READ_S):
                data = await reader.read(65536)

    async def _http1(
        self, peer: Peer, first: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        buffer = first
        while True:
            async with asyncio.timeout(READ_S):
                while b"\r\n\r\n" not in buffer:
                    more = await reader.read(65536)
                    if not more:
                        return
                    buffer += more
                head, _, buffer = buffer.partition(b"\r\n\r\n")
                line, *rest = head.decode("latin-1").split("\r\n")
                method, path, _ = line.split(" ", 2)
                pairs = [(n.lower(), v.strip()) for n, _, v in (h.partition(":") for h in rest)]
                headers = _joined(pairs)
                buffer = await _skip_body(headers, buffer, reader)
            host = headers.pop("host", "")
            seen = Seen(method, path, host, headers, peer.server_name, peer.alpn)
            status, answer, body = await self._respond(peer, seen)
            lines = [f"HTTP/1.1 {status} Simulated", f"content-length: {len(body)}"]
            lines += [f"{name}: {value}" for name, value in answer.items()]
            data = "\r\n".join(lines).encode() + b"\r\n\r\n"
            writer.write(data if method == "HEAD" else data + body)
            await writer.drain()
            if headers.get("connection") == "close":
                return

    async def _http2(
        self, peer: Peer, first: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        connection.initiate_connection()
        requests: dict[int, Any] = {}
        data = first
        answers: list[asyncio.Task[None]] = []
        try:
            while data:
                for event in connection.receive_data(data):
                    if isinstance(event, h2.events.RequestReceived):
                        requests[event.stream_id] = event.headers
                    elif isinstance(event, h2.events.DataReceived):
                        connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                    if isinstance(event, (h2.events.StreamEnded,)):
                        task = self._answer2(peer, connection, event.stream_id, requests, writer)
                        answers.append(asyncio.create_task(task, name="answer"))
                writer.write(connection.data_to_send())
                await writer.drain()
                async with asyncio.timeout(READ_S):
                    data = await reader.read(65536)
        finally:
            for each in answers:
                each.cancel()

    async def _answer2(
        self, peer: Peer, connection: Any, stream: int, requests: dict[int, Any], writer: asyncio.StreamWriter
    ) -> None:
        pairs = [(_text(n), _text(v)) for n, v in requests.pop(stream, ())]
        headers = _joined(pairs)
        seen = Seen(
            headers.pop(":method", ""),
            headers.pop(":path", ""),
            headers.pop(":authority", ""),
            {n: v for n, v in headers.items() if not n.startswith(":")},
            peer.server_name,
            peer.alpn,
        )
        status, answer, body = await self._respond(peer, seen)
        grpc = headers.get("content-type", "").startswith("application/grpc")
        with contextlib.suppress(h2.exceptions.ProtocolError, OSError):
            more = {"content-type": "application/grpc"} if grpc and status == 200 else {}
            connection.send_headers(stream, [(":status", str(status)), *{**answer, **more}.items()])
            if grpc:
                body = b"\0" + len(body).to_bytes(4, "big") + body
                connection.send_data(stream, body)
                connection.send_headers(stream, [("grpc-status", "0")], end_stream=True)
            else:
                connection.send_data(stream, body, end_stream=True)
            writer.write(connection.data_to_send())
            await writer.drain()

    async def _respond(self, peer: Peer, seen: Seen) -> tuple[int, dict[str, str], bytes]:
        call = dict(seen.headers).pop(REQUEST_ID, "")
        self.records.append(Record(peer.label, call, seen))
        self._attempts[call] += 1
        behaviour = self.behaviour
        if behaviour.delay_s:
            await asyncio.sleep(behaviour.delay_s)
        status = behaviour.status
        if behaviour.fail and self._attempts[call] > behaviour.fail:
            status = 200
        body = json.dumps({"label": peer.label, "host": seen.host, "path": seen.path}).encode()
        return status, dict(behaviour.headers), body


def _joined(pairs: list[tuple[str, str]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in pairs:
        found[name] = f"{found[name]},{value}" if name in found else value
    return found


def _text(value: bytes | str) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value


async def _skip_body(headers: dict[str, str], buffer: bytes, reader: asyncio.StreamReader) -> bytes:
    """Read the body; what comes after it."""
    if "chunked" in headers.get("transfer-encoding", ""):
        while b"0\r\n\r\n" not in buffer:
            more = await reader.read(65536)
            if not more:
                return b""
            buffer += more
        return buffer.partition(b"0\r\n\r\n")[2]
    left = int(headers.get("content-length", "0"))
    while len(buffer) < left:
        more = await reader.read(65536)
        if not more:
            return b""
        buffer += more
    return buffer[left:]


@dataclass
class Names:
    """A DNS server that knows the names of a case: A records, everything else does not exist."""

    hosts: dict[str, str] = field(default_factory=dict)
    transport: asyncio.DatagramTransport | None = None

    async def open(self, address: str, port: int) -> None:
        loop = asyncio.get_running_loop()
        self.transport, _ = await loop.create_datagram_endpoint(
            lambda: _Answers(self), local_addr=(address, port)
        )


class _Answers(asyncio.DatagramProtocol):
    def __init__(self, names: Names) -> None:
        self.names = names

    def datagram_received(self, data: bytes, addr: Any) -> None:
        labels, at = [], 12
        while data[at]:
            labels.append(data[at + 1 : at + 1 + data[at]].decode().lower())
            at += 1 + data[at]
        question = data[12 : at + 5]
        kind = int.from_bytes(data[at + 1 : at + 3], "big")
        address = self.names.hosts.get(".".join(labels))
        found = address is not None and kind == 1
        flags = b"\x81\x80" if address is not None else b"\x81\x83"
        answer = b""
        if found and address is not None:
            packed = bytes(int(n) for n in address.split("."))
            answer = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x01\x00\x04" + packed
        head = data[:2] + flags + b"\x00\x01" + (b"\x00\x01" if found else b"\x00\x00") + b"\0\0\0\0"
        assert self.names.transport is not None
        self.names.transport.sendto(head + question + answer, addr)
