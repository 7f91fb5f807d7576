"""Delta xDS for this host's proxies: each has a unix socket, and the socket is its identity.

The protocol and its transport are :mod:`retia.xds`; here is what stands behind a proxy's stream. What the
proxy's world does not know is asked of the controller, or answered at once where the controller is away. An
answer that the controller owes for longer than :data:`PATIENCE_S` is given without it.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import structlog

from retia.agent.world import OWN_SECRETS, ProxyWorld
from retia.aio.grpc import Server
from retia.model.resource import Name, Resource, TypeUrl
from retia.xds.messages import Request
from retia.xds.server import Channel, XdsService
from retia.xds.stream import Acked, Event, Gone, Nacked, Removed, Wanted, World
from retia.xds.wire import PLACEHOLDER

PATIENCE_S = 1.0
_log = structlog.get_logger("retia.agent.xds")


class Listener(Protocol):
    """Who hears what proxies want and have; the first argument is the proxy's id."""

    def on_wanted(self, proxy: str, names: list[Name]) -> None: ...

    def on_gone(self, proxy: str, names: list[Name]) -> None: ...

    def on_acked(self, proxy: str, resource: Resource) -> None: ...

    def on_removed(self, proxy: str, name: Name) -> None: ...

    def on_nacked(self, proxy: str, resource: Resource, error: str) -> None: ...


class ProxyXds:
    """The service of one proxy. ``away`` tells whether the controller is."""

    def __init__(self, proxy: str, world: ProxyWorld, listener: Listener, away: Callable[[], bool]) -> None:
        self.proxy = proxy
        self.world = world
        self._listener = listener
        self._away = away
        self._channels: set[Channel] = set()
        self._overdue: dict[Name, asyncio.TimerHandle] = {}
        self._server = Server(XdsService(self._accept).method)
        self.wanted: dict[Name, None] = {}
        """All that the proxy ever asked for: it asks once, and counts on being told."""
        self.acked: dict[Name, str] = {}
        """Versions that the proxy accepted, and has."""
        self.nacked: dict[Name, tuple[str, str]] = {}
        """Versions that the proxy refused, with its reason."""

    @property
    def connected(self) -> bool:
        return bool(self._channels)

    async def start(self, sock: socket.socket) -> None:
        """Serve on a listening socket; :meth:`close` closes it (the keeper has a descriptor of its own)."""
        await self._server.listen(sock)

    async def close(self) -> None:
        for timer in self._overdue.values():
            timer.cancel()
        self._overdue.clear()
        await self._server.stop()

    def changed(self, names: Iterable[Name]) -> None:
        """The world has other answers for ``names``."""
        names = list(names)
        for name in names:
            if name in self._overdue and self.world.get(name) is not None:
                self._overdue.pop(name).cancel()
        for channel in self._channels if names else ():
            channel.changed(names)

    def answer_waiting(self) -> None:
        """The controller has gone: answer what it owes."""
        names = [n for n in self._overdue if self.world.get(n) is None]
        self.changed(self.world.answer_alone(names))

    def _accept(self, _peer: Any, _first: Request) -> _Subscriber:
        return _Subscriber(self)

    # What the streams tell

    def opened(self, channel: Channel) -> None:
        self._channels.add(channel)

    def closed(self, channel: Channel) -> None:
        self._channels.discard(channel)

    def handle(self, events: list[Event]) -> None:
        wanted: list[Name] = []
        gone: list[Name] = []
        for event in events:
            match event:
                case Wanted(name):
                    wanted.append(name)
                case Gone(name):
                    gone.append(name)
                case Acked(resource):
                    self._accepted(resource)
                case Removed(name):
                    self.acked.pop(name, None)
                    self.nacked.pop(name, None)
                    self._listener.on_removed(self.proxy, name)
                case Nacked(resource, error):
                    self._refused(resource, error)
        if gone:
            for name in gone:
                self.wanted.pop(name, None)
            self._listener.on_gone(self.proxy, gone)
        outside = [n for n in wanted if not _is_made_here(n)]
        if outside:
            self._ask(outside)

    def _accepted(self, resource: Resource) -> None:
        name = Name(resource.type, resource.name)
        self.acked[name] = resource.version
        self.nacked.pop(name, None)
        self.world.accepted(resource)
        self._listener.on_acked(self.proxy, resource)

    def _refused(self, resource: Resource, error: str) -> None:
        name = Name(resource.type, resource.name)
        self.nacked[name] = (resource.version, error)
        _log.error("the proxy refuses a resource", proxy=self.proxy, resource=str(name), error=error)
        self._listener.on_nacked(self.proxy, resource, error)
        if changed := self.world.refused(resource):
            # Later: a stream may not be told of changes while it reports events.
            asyncio.get_running_loop().call_soon(self.changed, changed)

    def _ask(self, names: list[Name]) -> None:
        """Names that the proxy had not asked for on this stream."""
        self.wanted.update(dict.fromkeys(names))
        self._listener.on_wanted(self.proxy, names)
        missing = [n for n in names if self.world.get(n) is None]
        if missing and self._away():
            # Later: a stream may not be told of changes while it reports events.
            asyncio.get_running_loop().call_soon(self._answer_alone, missing)
            return
        loop = asyncio.get_running_loop()
        for name in missing:
            if name not in self._overdue:
                self._overdue[name] = loop.call_later(PATIENCE_S, self._no_answer, name)

    def _answer_alone(self, names: list[Name]) -> None:
        self.changed(self.world.answer_alone(names))

    def _no_answer(self, name: Name) -> None:
        self._overdue.pop(name, None)
        if self.world.get(name) is None:
            _log.warning("no answer from the controller", proxy=self.proxy, resource=str(name))
            self._answer_alone([name])


class _Subscriber:
    """One stream of the proxy (a new one may begin before the old one's end is noticed)."""

    def __init__(self, xds: ProxyXds) -> None:
        self._xds = xds
        self._channel: Channel | None = None
        self.world: World = xds.world

    def opened(self, channel: Channel) -> None:
        self._channel = channel
        self._xds.opened(channel)

    def handle(self, events: list[Event]) -> None:
        self._xds.handle(events)

    def closed(self) -> None:
        if self._channel is not None:
            self._xds.closed(self._channel)


def _is_made_here(name: Name) -> bool:
    """The own secrets, placeholders, and listeners (which come unasked)."""
    if name.type is TypeUrl.VIRTUAL_HOST:
        return name.name.endswith(PLACEHOLDER)
    if name.type is TypeUrl.SECRET:
        return name.name in OWN_SECRETS
    return name.type is TypeUrl.LISTENER
