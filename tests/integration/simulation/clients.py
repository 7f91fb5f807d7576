"""The callers: raw HTTP/1.1, HTTP/2, bytes and TLS hellos, each on a connection of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import h2.config
import h2.connection
import h2.events

CALL_S = 12.0


@dataclass
class Entry:
    """Where the connection enters a proxy, and what is said of it before its own bytes."""

    address: str
    port: int
    announce: str = ""
    """The line of the PROXY protocol; empty: none."""
    tls: ssl.SSLContext | None = None
    server_name: str = ""


@dataclass
class Reply:
    """What came back; ``closed``: nothing did, and why."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    closed: str = ""


def announce(source: str, address: str, port: int) -> str:
    """A connection from ``source`` to ``address:port``, as the PROXY protocol says it."""
    return f"PROXY TCP4 {source} {address} 40000 {port}\r\n"


@contextlib.asynccontextmanager
async def connected(entry: Entry) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    name = entry.server_name or None if entry.tls is not None else None
    reader, writer = await asyncio.open_connection(
        entry.address, entry.port, ssl=entry.tls, server_hostname=name or ("" if entry.tls else None)
    )
    try:
        if entry.announce:
            writer.write(entry.announce.encode())
        yield reader, writer
    finally:
        writer.close()


async def http1(
    entry: Entry, method: str, path: str, host: str, headers: list[tuple[str, str]], body: bytes = b""
) -> Reply:
    """One request; ``path`` may be a whole URL (forward proxies)."""
    lines = [f"{method} {path} HTTP/1.1", f"host: {host}", "connection: close"]
    lines += [f"{name}: {value}" for name, value in headers]
    if body:
        lines.append(f"content-length: {len(body)}")
    data = "\r\n".join(lines).encode() + b"\r\n\r\n" + body
    try:
        async with asyncio.timeout(CALL_S), connected(entry) as (reader, writer):
            writer.write(data)
            return await _answer(reader, method)
    except asyncio.IncompleteReadError:
        return Reply(closed="the connection was closed without an answer")
    except (OSError, EOFError, ssl.SSLError, TimeoutError) as error:
        return Reply(closed=repr(error))


async def _answer(reader: asyncio.StreamReader, method: str) -> Reply:
    """One answer. Its end is told by its headers: Envoy may wait a second before it closes."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *others = head.rstrip("\r\n").split("\r\n")
    found = _headers(line.partition(":")[::2] for line in others)
    status = int(first.split(" ")[1])
    if method in ("HEAD", "CONNECT") or status in (204, 304):
        return Reply(status, found)
    if "chunked" in found.get("transfer-encoding", ""):
        return Reply(status, found, await _chunks(reader))
    if "content-length" in found:
        return Reply(status, found, await reader.readexactly(int(found["content-length"])))
    return Reply(status, found, await reader.read(-1))


def _headers(pairs: Any) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in pairs:
        name, value = name.strip().lower(), value.strip()
        found[name] = f"{found[name]},{value}" if name in found else value
    return found


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while True:
        size = int((await reader.readline()).split(b";")[0] or b"0", 16)
        body += (await reader.readexactly(size + 2))[:-2]
        if not size:
            return body


async def http2(
    entry: Entry,
    method: str,
    path: str,
    host: str,
    headers: list[tuple[str, str]],
    body: bytes = b"",
    scheme: str = "http",
) -> Reply:
    """One request with prior knowledge (or ALPN). gRPC's trailers are among the headers."""
    connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    reply = Reply()
    try:
        async with asyncio.timeout(CALL_S), connected(entry) as (reader, writer):
            connection.initiate_connection()
            pairs = [(":method", method), (":scheme", scheme), (":authority", host), (":path", path)]
            connection.send_headers(1, [*pairs, *headers], end_stream=not body)
            if body:
                connection.send_data(1, body, end_stream=True)
            writer.write(connection.data_to_send())
            while data := await reader.read(65536):
                for event in connection.receive_data(data):
                    if isinstance(event, (h2.events.ResponseReceived, h2.events.TrailersReceived)):
                        reply.headers |= _headers((_text(n), _text(v)) for n, v in event.headers or ())
                    elif isinstance(event, h2.events.DataReceived):
                        reply.body += event.data
                        connection.acknowledge_received_data(event.flow_controlled_length, 1)
                    elif isinstance(event, (h2.events.StreamEnded, h2.events.StreamReset)):
                        reply.status = int(reply.headers.pop(":status", "0"))
                        if isinstance(event, h2.events.StreamReset) and not reply.status:
                            reply.closed = "the stream was reset"
                        return reply
                writer.write(connection.data_to_send())
    except (OSError, EOFError, ssl.SSLError, TimeoutError) as error:
        return Reply(closed=repr(error))
    return Reply(closed="the connection was closed without an answer")


def _text(value: bytes | str) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value


async def raw(entry: Entry, hello: bytes) -> dict[str, Any]:
    """Send bytes (none: wait for the other side) and read the line that tells who is there.

    An empty result: the connection was closed.
    """
    try:
        async with asyncio.timeout(CALL_S), connected(entry) as (reader, writer):
            if hello:
                writer.write(hello)
            line = await reader.readline()
    except (OSError, EOFError, ssl.SSLError, TimeoutError):
        return {}
    try:
        found: dict[str, Any] = json.loads(line)
    except ValueError:
        return {}
    return found


async def redis(entry: Entry, command: tuple[str, ...]) -> dict[str, Any]:
    """Send a command of Redis; the answer is a text that tells who is there."""
    words = "".join(f"${len(word)}\r\n{word}\r\n" for word in command)
    try:
        async with asyncio.timeout(CALL_S), connected(entry) as (reader, writer):
            writer.write(f"*{len(command)}\r\n{words}".encode())
            head = await reader.readline()
            if not head.startswith(b"$"):
                return {}
            found: dict[str, Any] = json.loads(await reader.readexactly(int(head[1:])))
            return found
    except (OSError, EOFError, TimeoutError, ValueError):
        return {}


def client_hello(server_name: str, alpn: tuple[str, ...]) -> bytes:
    """The first bytes of a TLS client. Who passes TLS on unopened needs no more; nobody answers it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if alpn:
        context.set_alpn_protocols(list(alpn))
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname=server_name or None)
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()
