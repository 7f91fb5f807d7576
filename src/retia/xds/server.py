"""Delta xDS over gRPC: carries the stream machine's messages.

Each stream has a :class:`Subscriber`, who says what exists for that client and hears what became of it. Two
tasks serve a stream: one reads requests, one writes responses. The writer asks the machine for the next
response only when the last was taken by the transport, so a slow client costs a set of names and no more.
A quiet stream costs nothing but its connection's liveness checks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from google.protobuf.message import DecodeError
from grpclib.const import Status
from grpclib.exceptions import GRPCError, StreamTerminatedError

from retia.aio.grpc import Method, receive_bytes
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

    __slots__ = ("_subscriber", "_wake", "stream")

    def __init__(self, subscriber: Subscriber, name_limit: int) -> None:
        self.stream = Stream(subscriber.world, name_limit)
        self._subscriber = subscriber
        self._wake = asyncio.Event()

    def changed(self, names: Iterable[Name]) -> None:
        """The world has something else for ``names``; what the client is to have of it will be sent."""
        self.stream.changed(names)
        self._wake.set()

    def receive(self, request: Request) -> None:
        self.stream.receive(request)
        self._hand_over()
        self._wake.set()

    async def write(self, carrier: Any) -> None:
        """Send whatever is due, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while (response := self.stream.next()) is not None:
                self._hand_over()
                await carrier.send_message(response_bytes(response))
            self._hand_over()

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
        channel = Channel(subscriber, self._name_limit)
        self.streams += 1
        subscriber.opened(channel)
        try:
            await _carry(carrier, channel, first)
        finally:
            self.streams -= 1
            subscriber.closed()


async def _carry(carrier: Any, channel: Channel, first: Request) -> None:
    channel.receive(first)
    writer = asyncio.create_task(channel.write(carrier), name="xds-write")
    reader = asyncio.create_task(_read(carrier, channel), name="xds-read")
    try:
        done, _ = await asyncio.wait((reader, writer), return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            _raise(task)
    finally:
        for task in (reader, writer):
            task.cancel()
        await asyncio.gather(reader, writer, return_exceptions=True)


def _raise(task: asyncio.Task[None]) -> None:
    """A broken connection ends a stream like any other end."""
    try:
        task.result()
    except (StreamTerminatedError, ConnectionError):
        return


async def _read(carrier: Any, channel: Channel) -> None:
    while (request := await _request(carrier)) is not None:
        channel.receive(request)


async def _request(carrier: Any) -> Request | None:
    data = await receive_bytes(carrier)
    if data is None:
        return None
    try:
        return parse_request(data)
    except DecodeError as error:
        raise GRPCError(Status.INVALID_ARGUMENT, "not a DeltaDiscoveryRequest") from error
