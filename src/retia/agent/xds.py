"""Delta xDS for this host's proxies: each has a unix socket, and the socket is its identity.

The protocol is :class:`retia.xds.stream.Stream`; here it is carried over gRPC. A proxy's stream asks its world;
what the world does not know is asked of the controller, or answered at once where the controller is away. An
answer that the controller owes for longer than :data:`PATIENCE_S` is given without it.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import grpclib.const
import grpclib.server
import structlog
from google.protobuf.message import DecodeError
from grpclib.encoding.base import CodecBase
from grpclib.exceptions import GRPCError, StreamTerminatedError

from retia.agent.world import ProxyWorld
from retia.model.resource import Name, Resource, TypeUrl
from retia.xds.stream import Acked, Gone, Nacked, Removed, Stream, Wanted
from retia.xds.wire import parse_request, response_bytes

PATIENCE_S = 1.0
METHOD = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
_log = structlog.get_logger("retia.agent.xds")


class BytesCodec(CodecBase):  # type: ignore[misc, unused-ignore]
    """Messages as bytes: they are parsed and joined by :mod:`retia.xds.wire`."""

    __content_subtype__ = "proto"

    def encode(self, message: Any, message_type: Any) -> bytes:
        return bytes(message)

    def decode(self, data: bytes, message_type: Any) -> bytes:
        return data


class Listener:
    """What the proxy's service tells: all have one parameter more than meets the eye, the proxy's id."""

    def on_wanted(self, proxy: str, names: list[Name]) -> None: ...

    def on_gone(self, proxy: str, names: list[Name]) -> None: ...

    def on_acked(self, proxy: str, resource: Resource) -> None: ...

    def on_removed(self, proxy: str, name: Name) -> None: ...

    def on_nacked(self, proxy: str, resource: Resource, error: str) -> None: ...

    def on_stream(self, proxy: str, connected: bool) -> None: ...


class ProxyXds:
    """The service of one proxy. ``away`` tells whether the controller is."""

    def __init__(self, proxy: str, world: ProxyWorld, listener: Listener, away: Callable[[], bool]) -> None:
        self.proxy = proxy
        self.world = world
        self._listener = listener
        self._away = away
        self._streams: dict[Stream, asyncio.Event] = {}
        self._overdue: dict[Name, asyncio.TimerHandle] = {}
        self._server: grpclib.server.Server | None = None
        self.acked: dict[Name, str] = {}
        """Versions that the proxy accepted, and has."""
        self.nacked: dict[Name, tuple[str, str]] = {}
        """Versions that the proxy refused, with its reason."""

    @property
    def connected(self) -> bool:
        return bool(self._streams)

    async def start(self, sock: socket.socket) -> None:
        """Serve on a listening socket; it is closed by :meth:`close` (the keeper has its own descriptor)."""
        self._server = grpclib.server.Server([self], codec=BytesCodec())
        await self._server.start(sock=sock)

    async def close(self) -> None:
        for timer in self._overdue.values():
            timer.cancel()
        self._overdue.clear()
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    def __mapping__(self) -> Mapping[str, grpclib.const.Handler]:
        cardinality = grpclib.const.Cardinality.STREAM_STREAM
        return {METHOD: grpclib.const.Handler(self._serve, cardinality, bytes, bytes)}

    def changed(self, names: Iterable[Name]) -> None:
        """The world has other answers for ``names``."""
        names = list(names)
        for name in names:
            timer = self._overdue.pop(name, None)
            if timer is not None and self.world.get(name) is None:
                self._overdue[name] = timer
            elif timer is not None:
                timer.cancel()
        if names:
            for stream, wake in self._streams.items():
                stream.changed(names)
                wake.set()

    def answer_waiting(self) -> None:
        """The controller has gone: answer what it owes."""
        names = [n for n in self._overdue if self.world.get(n) is None]
        self.changed(self.world.answer_alone(names))

    # One stream

    async def _serve(self, carrier: Any) -> None:
        stream, wake = Stream(self.world), asyncio.Event()
        self._streams[stream] = wake
        self._listener.on_stream(self.proxy, True)
        try:
            async with asyncio.TaskGroup() as tasks:
                writer = tasks.create_task(self._write(carrier, stream, wake), name=f"xds-write {self.proxy}")
                await self._read(carrier, stream, wake)
                writer.cancel()
        except* (StreamTerminatedError, OSError):
            pass
        except* DecodeError as group:
            raise GRPCError(grpclib.const.Status.INVALID_ARGUMENT, "not a DeltaDiscoveryRequest") from group
        finally:
            del self._streams[stream]
            self._listener.on_stream(self.proxy, bool(self._streams))

    async def _read(self, carrier: Any, stream: Stream, wake: asyncio.Event) -> None:
        while (data := await carrier.recv_message()) is not None:
            stream.receive(parse_request(data))
            self._handle(stream)
            wake.set()

    async def _write(self, carrier: Any, stream: Stream, wake: asyncio.Event) -> None:
        while True:
            await wake.wait()
            wake.clear()
            while (response := stream.next()) is not None:
                await carrier.send_message(response_bytes(response))
                self._handle(stream)
            self._handle(stream)

    def _handle(self, stream: Stream) -> None:
        wanted: list[Name] = []
        gone: list[Name] = []
        for event in stream.events():
            match event:
                case Wanted(name):
                    wanted.append(name)
                case Gone(name):
                    gone.append(name)
                case Acked(resource):
                    self._acked(resource)
                case Removed(name):
                    self.acked.pop(name, None)
                    self.nacked.pop(name, None)
                    self._listener.on_removed(self.proxy, name)
                case Nacked(resource, error):
                    self._nacked(resource, error)
        if wanted:
            self._ask(wanted)
        if gone:
            self._listener.on_gone(self.proxy, gone)

    def _acked(self, resource: Resource) -> None:
        name = Name(resource.type, resource.name)
        self.acked[name] = resource.version
        self.nacked.pop(name, None)
        self._listener.on_acked(self.proxy, resource)

    def _nacked(self, resource: Resource, error: str) -> None:
        name = Name(resource.type, resource.name)
        self.nacked[name] = (resource.version, error)
        _log.error("the proxy refuses a resource", proxy=self.proxy, resource=str(name), error=error)
        self._listener.on_nacked(self.proxy, resource, error)

    def _ask(self, names: list[Name]) -> None:
        """Names that the proxy had not asked for on this stream."""
        outside = [n for n in names if n.type not in (TypeUrl.SECRET, TypeUrl.LISTENER)]
        outside = [n for n in outside if not (n.type is TypeUrl.VIRTUAL_HOST and n.name.endswith("/_"))]
        if outside:
            self._listener.on_wanted(self.proxy, outside)
        missing = [n for n in outside if self.world.get(n) is None]
        if not missing:
            return
        if self._away():
            self.changed(self.world.answer_alone(missing))
            return
        loop = asyncio.get_running_loop()
        for name in missing:
            if name not in self._overdue:
                self._overdue[name] = loop.call_later(PATIENCE_S, self._no_answer, name)

    def _no_answer(self, name: Name) -> None:
        self._overdue.pop(name, None)
        if self.world.get(name) is None:
            _log.warning("no answer from the controller", proxy=self.proxy, resource=str(name))
            self.changed(self.world.answer_alone([name]))
