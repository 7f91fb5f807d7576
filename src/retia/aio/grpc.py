"""A gRPC server that takes sockets, bounds messages and closes its connections when it stops.

grpclib does the protocol. Four things are added. Messages are bounded, because a length is the peer's word
for how much memory to take. Methods may carry bytes instead of message objects. A refusal reaches the client
with its message: grpclib resets the stream right behind it, and its own client then sees the reset only. And
a server that stops closes each connection; otherwise a client would go on using it.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import grpclib.const
import grpclib.server
import h2.exceptions
import structlog
from google.protobuf.message import DecodeError
from grpclib.config import Configuration
from grpclib.encoding.base import CodecBase
from grpclib.exceptions import GRPCError, StreamTerminatedError
from grpclib.metadata import encode_grpc_message

MESSAGE_BYTES = 4 * 1024 * 1024
"""The largest message taken where nothing else is said; gRPC's usual limit."""

KEEPALIVE_S = 30.0
"""How often a silent peer is asked whether it is still there."""
KEEPALIVE_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 5.0
REFUSAL_TIMEOUT_S = 1.0
BACKLOG = 4096
"""Connections that may wait to be accepted: a whole fleet that reconnects at once. The kernel's
``net.core.somaxconn`` is the bound above it."""

Handler = Callable[[Any], Awaitable[None]]

_log = structlog.get_logger("retia.aio.grpc")


@dataclass(frozen=True, slots=True)
class Method:
    """One method: ``handler`` gets grpclib's server stream. ``request`` and ``reply`` are message types, or
    ``bytes``."""

    path: str
    handler: Handler
    request: type
    reply: type
    streaming: bool = False


class MixedCodec(CodecBase):  # type: ignore[misc, unused-ignore]
    """Message objects as protobuf, bytes as they are."""

    __content_subtype__ = "proto"

    def encode(self, message: Any, message_type: Any) -> bytes:
        return message if message_type is bytes else message.SerializeToString()  # type: ignore[no-any-return]

    def decode(self, data: bytes, message_type: Any) -> Any:
        return data if message_type is bytes else message_type.FromString(data)


async def receive_bytes(stream: Any, limit_bytes: int = MESSAGE_BYTES) -> bytes | None:
    """The next message's bytes, or ``None`` at the end. Raises ``GRPCError`` for a message beyond the limit.

    It reads below grpclib's own ``recv_message``, which takes any length.
    """
    head = await stream._stream.recv_data(5)
    if not head:
        return None
    compressed, size = struct.unpack(">?I", head)
    _check_head(compressed, size, limit_bytes)
    data: bytes = await stream._stream.recv_data(size)
    return data


def send_now(stream: Any, data: bytes) -> bool:
    """Send one message if it fits the windows as they are; false: it must be awaited. Costs half of what
    grpclib's ``send_message`` does, and no task."""
    lower = stream._stream
    connection, h2_connection = lower.connection, lower._h2_connection
    size = len(data) + 5
    if (
        not stream._send_initial_metadata_done
        or not connection.write_ready.is_set()
        or size > h2_connection.max_outbound_frame_size
        or size > h2_connection.local_flow_control_window(lower.id)
    ):
        return False
    h2_connection.send_data(lower.id, struct.pack(">?I", False, len(data)) + data)
    lower._transport.write(h2_connection.data_to_send())
    connection.data_send_process()
    return True


class Inbox:
    """Takes the place of grpclib's buffer of a stream: hands over each message when it has arrived, without
    a task that waits for it. ``take`` gets each message; ``ended`` is called once, with what went wrong or
    ``None``.
    """

    def __init__(
        self,
        stream: Any,
        take: Callable[[bytes], None],
        ended: Callable[[Exception | None], None],
        limit_bytes: int = MESSAGE_BYTES,
    ) -> None:
        self._take = take
        self._ended: Callable[[Exception | None], None] | None = ended
        self._limit_bytes = limit_bytes
        self._data = bytearray()
        lower = stream._stream
        before = lower.buffer
        self._acknowledge = before._ack_callback
        lower.buffer = self
        # What has come already and was not read.
        for chunk in before._acked:
            self._data += chunk.data
        while not before._unacked.empty():
            data, _, ack_size = before._unacked.get_nowait()
            if ack_size:
                self._acknowledge(ack_size)
            self._data += data
        self._parse()
        if before._eof:
            self.eof()

    def add(self, data: bytes, ack_size: int) -> None:
        """Called by grpclib."""
        self._acknowledge(ack_size)
        self._data += data
        self._parse()

    def eof(self) -> None:
        """Called by grpclib."""
        self._end(None)

    def unacked_size(self) -> int:
        """Called by grpclib: all is acknowledged as it comes."""
        return 0

    async def read(self, size: int) -> bytes:
        """What a refusal waits for: the end."""
        return b""

    def _parse(self) -> None:
        data = self._data
        at = 0
        try:
            while self._ended is not None and len(data) - at >= 5:
                compressed, size = struct.unpack_from(">?I", data, at)
                _check_head(compressed, size, self._limit_bytes)
                if len(data) - at < size + 5:
                    break
                self._take(bytes(data[at + 5 : at + 5 + size]))
                at += size + 5
        except (GRPCError, DecodeError) as error:
            self._end(error)
        del data[:at]

    def _end(self, error: Exception | None) -> None:
        ended, self._ended = self._ended, None
        if ended is not None:
            ended(error)


def _check_head(compressed: bool, size: int, limit_bytes: int) -> None:
    if compressed:
        raise GRPCError(grpclib.const.Status.UNIMPLEMENTED, "compressed messages are not taken")
    if size > limit_bytes:
        raise GRPCError(
            grpclib.const.Status.RESOURCE_EXHAUSTED,
            f"a message of {size} bytes; at most {limit_bytes} are taken",
        )


class Server:
    """Serves methods on any number of sockets."""

    def __init__(self, *methods: Method, keepalive_s: float = KEEPALIVE_S) -> None:
        self._methods = methods
        self._config = Configuration(
            _keepalive_time=keepalive_s,
            _keepalive_timeout=KEEPALIVE_TIMEOUT_S,
            _keepalive_permit_without_calls=True,
            _http2_max_pings_without_data=0,
            _http2_min_sent_ping_interval_without_data=keepalive_s,
        )
        self._servers: list[_Tracked] = []

    def __mapping__(self) -> Mapping[str, grpclib.const.Handler]:
        cardinality = grpclib.const.Cardinality
        return {
            m.path: grpclib.const.Handler(
                _guarded(m),
                cardinality.STREAM_STREAM if m.streaming else cardinality.UNARY_UNARY,
                m.request,
                m.reply,
            )
            for m in self._methods
        }

    async def listen(self, sock: socket.socket, tls: ssl.SSLContext | None = None) -> None:
        """Serve on a bound socket; it is closed by :meth:`stop`."""
        server = _Tracked([self], codec=MixedCodec(), config=self._config)
        await server.start(sock=sock, ssl=tls, backlog=BACKLOG)
        self._servers.append(server)

    async def stop(self) -> None:
        """Take no more, end what runs, close all connections. Takes at most :data:`STOP_TIMEOUT_S`."""
        servers, self._servers = self._servers, []
        for server in servers:
            server.close()
            server.hang_up()
        for server in servers:
            try:
                async with asyncio.timeout(STOP_TIMEOUT_S):
                    await server.wait_closed()
            except TimeoutError:
                continue


def _guarded(method: Method) -> Handler:
    """The handler with its failures turned into refusals."""

    async def handle(stream: Any) -> None:
        try:
            await method.handler(stream)
        except GRPCError as error:
            await refuse(stream, error.status, error.message or "")
        except DecodeError:
            await refuse(stream, grpclib.const.Status.INVALID_ARGUMENT, "not the message that is expected")
        except TimeoutError:
            await refuse(stream, grpclib.const.Status.DEADLINE_EXCEEDED, "nothing came in time")
        except (StreamTerminatedError, ConnectionError):
            # The client has gone: there is nobody to tell.
            raise
        except Exception:  # noqa: BLE001 - one call's failure is not the server's
            _log.exception("a call failed", method=method.path)
            await refuse(stream, grpclib.const.Status.INTERNAL, "the server failed; see its log")

    return handle


async def refuse(stream: Any, status: grpclib.const.Status, message: str) -> None:
    """End a call with an error, and give the client a moment to end its side."""
    headers = [("grpc-status", str(status.value)), ("grpc-message", encode_grpc_message(message))]
    if not stream._send_initial_metadata_done:
        headers = [(":status", "200"), ("content-type", stream._content_type), *headers]
    with suppress(StreamTerminatedError, ConnectionError, h2.exceptions.ProtocolError):
        await stream._stream.send_headers(headers, end_stream=True)
    stream._send_trailing_metadata_done = True
    with suppress(StreamTerminatedError, ConnectionError, TimeoutError, AssertionError):
        async with asyncio.timeout(REFUSAL_TIMEOUT_S):
            while await stream._stream.recv_data(1):
                pass


class _Tracked(grpclib.server.Server):  # type: ignore[misc, unused-ignore]
    """Knows its connections, to close them."""

    def _protocol_factory(self) -> Any:
        protocol = super()._protocol_factory()
        if not hasattr(self, "_open"):
            self._open: set[Any] = set()
        self._open = {p for p in self._open if hasattr(p, "connection") and not p.connection.is_closing()}
        self._open.add(protocol)
        return protocol

    def hang_up(self) -> None:
        for protocol in getattr(self, "_open", ()):
            if hasattr(protocol, "connection"):
                protocol.connection.close()
