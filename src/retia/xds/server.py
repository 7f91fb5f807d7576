"""Delta xDS over gRPC: carries the stream machine's messages.

Each stream has a :class:`Subscriber`, who says what exists for that client and hears what became of it.
Requests are taken as they arrive and responses written in the same turn of the loop, without a task between:
with thousands of streams, waking tasks would cost more than the messages. The machine is asked for the next
response only when the transport has taken the last, so a slow client costs a set of names and no more; its
one task then waits until it can be written to. A quiet stream costs its connection's liveness checks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from google.protobuf.message import DecodeError
from grpclib.const import Status
from grpclib.exceptions import GRPCError, StreamTerminatedError
from h2.exceptions import ProtocolError

from retia.aio.grpc import Inbox, Method, receive_bytes, send_now
from retia.model.resource import Name
from retia.xds.messages import Request
from retia.xds.stream import NAME_LIMIT, Event, Stream, World
from retia.xds.wire import parse_request, response_bytes

DELTA_METHOD = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
FIRST_REQUEST_TIMEOUT_S = 15.0


class Refused(Exception):  # noqa: N818
    """The client may not have a stream; the message says why."""


class Subscriber(Protocol):
    """The server's side of one stream. Its methods are called from the event loop and must not block."""

    world: World

    def opened(self, channel: Channel) -> None:
        """The stream is there; ``channel`` is good until :meth:`closed`."""

    def handle(self, events: list[Event]) -> None:
        """What has happened; called before the next response is made."""

    def closed(self) -> None:
        """The stream is over."""


Accept = Callable[[Any, Request], Subscriber]
"""From the connection's peer (grpclib's ``Peer``) and the first request (which is not to be believed): the
subscriber. Raises :class:`Refused`."""


class Channel:
    """A running stream."""

    __slots__ = (
        "_blocked",
        "_carrier",
        "_error",
        "_loop",
        "_over",
        "_scheduled",
        "_subscriber",
        "_unsent",
        "_wake",
        "stream",
    )

    def __init__(self, subscriber: Subscriber, carrier: Any, name_limit: int) -> None:
        self.stream = Stream(subscriber.world, name_limit)
        self._subscriber = subscriber
        self._carrier = carrier
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._scheduled = False
        self._blocked = False
        self._unsent = b""
        self._over = False
        self._error: Exception | None = None

    def changed(self, names: Iterable[Name]) -> None:
        """The world has something else for ``names``; what the client is to have of it will be sent."""
        self.stream.changed(names)
        self._schedule()

    def receive(self, request: Request) -> None:
        self.stream.receive(request)
        self._hand_over()
        self._schedule()

    async def run(self) -> None:
        """Until the client ends the stream; raises what it did wrong."""
        await self._carrier.send_initial_metadata()
        Inbox(self._carrier, self._take, self._ended)
        while not self._over:
            await self._wake.wait()
            self._wake.clear()
            if self._blocked:
                await self._carrier.send_message(self._unsent)
                self._blocked, self._unsent = False, b""
                self._schedule()
        if self._error is not None:
            raise self._error

    def _take(self, data: bytes) -> None:
        self.receive(parse_request(data))

    def _schedule(self) -> None:
        if not self._scheduled and not self._blocked and self.stream.due:
            self._scheduled = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        """Send what is due as far as the transport takes it."""
        self._scheduled = False
        if self._over:
            return
        try:
            while not self._blocked and (response := self.stream.next()) is not None:
                self._hand_over()
                data = response_bytes(response)
                if not send_now(self._carrier, data):
                    self._blocked, self._unsent = True, data
                    self._wake.set()
            self._hand_over()
        except (ConnectionError, ProtocolError):
            # The connection is going; its end is told by the transport.
            self._ended(None)
        except Exception as error:  # noqa: BLE001 - raised in the stream's own task
            self._ended(error)

    def _ended(self, error: Exception | None) -> None:
        self._over = True
        self._error = error
        self._wake.set()

    def close(self) -> None:
        """Nothing is sent any more."""
        self._over = True

    def _hand_over(self) -> None:
        events = self.stream.events()
        if events:
            self._subscriber.handle(events)


class XdsService:
    """The service; :attr:`method` is what a :class:`retia.aio.grpc.Server` takes."""

    def __init__(self, accept: Accept, name_limit: int = NAME_LIMIT) -> None:
        self._accept = accept
        self._name_limit = name_limit
        self.streams = 0
        """Streams open now."""

    @property
    def method(self) -> Method:
        return Method(DELTA_METHOD, self._serve, bytes, bytes, streaming=True)

    async def _serve(self, carrier: Any) -> None:
        async with asyncio.timeout(FIRST_REQUEST_TIMEOUT_S):
            first = await _request(carrier)
        if first is None:
            return
        try:
            subscriber = self._accept(carrier.peer, first)
        except Refused as refusal:
            raise GRPCError(Status.PERMISSION_DENIED, str(refusal)) from refusal
        channel = Channel(subscriber, carrier, self._name_limit)
        self.streams += 1
        subscriber.opened(channel)
        try:
            channel.receive(first)
            await channel.run()
        except (StreamTerminatedError, ConnectionError):
            # A broken connection ends a stream like any other end.
            return
        finally:
            channel.close()
            self.streams -= 1
            subscriber.closed()


async def _request(carrier: Any) -> Request | None:
    data = await receive_bytes(carrier)
    if data is None:
        return None
    try:
        return parse_request(data)
    except DecodeError as error:
        raise GRPCError(Status.INVALID_ARGUMENT, "not a DeltaDiscoveryRequest") from error
