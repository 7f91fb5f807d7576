"""Streams that end at the controller itself, without an agent between: for clients that speak xDS alone.

The connection's certificate says which host it is; ``node.id`` says which of that host's registered proxies
is meant. A world here is the engine seen through one proxy, and whatever a client ever looked at is watched
for it.
"""

from __future__ import annotations

from typing import Any

from retia.control.core import Core
from retia.control.learned import key_of
from retia.control.session import host_of
from retia.model.mesh import Proxy
from retia.model.resource import Name, Resource, TypeUrl
from retia.xds.messages import Request
from retia.xds.server import Channel, Refused
from retia.xds.stream import LISTED, NAME_LIMIT, Acked, Event, Nacked, Removed, World

MOST_WATCHED = 8 * NAME_LIMIT
"""Names that don't exist and are watched for one client; over it they are answered and not watched."""


class DirectClient:
    """The subscriber, and the world, of one such stream."""

    def __init__(self, core: Core, host: str, proxy: Proxy) -> None:
        self.world: World = self
        self._core = core
        self._host = host
        self._proxy = proxy
        self._watched: set[Name] = set()
        self._channel: Channel | None = None

    # -- the world -----------------------------------------------------------------------------------------

    def get(self, name: Name) -> Resource | None:
        resource = self._core.pipeline.engine.resource(self._proxy, name)
        if name not in self._watched and (resource.exists or len(self._watched) < MOST_WATCHED):
            self._watch(name)
        return resource

    def listed(self, type_url: TypeUrl) -> tuple[str, ...]:
        names = self._core.pipeline.engine.listed(self._proxy, type_url)
        self._watch(Name(type_url, LISTED))
        if type_url is not TypeUrl.VIRTUAL_HOST or self._proxy.workload is None:
            return names
        key = key_of(self._core.registry.workload(self._proxy.workload))
        return (*names, *(n.name for n in self._core.learned.names(key) if n.type is type_url))

    def _watch(self, name: Name) -> None:
        self._watched.add(name)
        self._core.hub.watch(name, self)

    # -- the subscriber ------------------------------------------------------------------------------------

    def opened(self, channel: Channel) -> None:
        self._channel = channel
        self._core.registry.on_proxy.append(self._on_proxy)

    def changed(self, names: list[Name]) -> None:
        if self._channel is not None:
            self._channel.changed(names)

    def handle(self, events: list[Event]) -> None:
        state = self._core.registry.hosts.get(self._host)
        proxy = state.proxies.get(self._proxy.id) if state else None
        if proxy is None:
            return
        for event in events:
            match event:
                case Acked(resource):
                    name = Name(resource.type, resource.name)
                    proxy.acked[name] = resource.version
                    proxy.nacked.pop(name, None)
                case Removed(name):
                    proxy.acked.pop(name, None)
                    proxy.nacked.pop(name, None)
                case Nacked(resource, error):
                    name = Name(resource.type, resource.name)
                    proxy.nacked[name] = (resource.version, error)
                    self._core.quarantine.refuse(self._proxy, name, resource.version, error)

    def closed(self) -> None:
        self._channel = None
        self._core.hub.leave(self._watched, self)
        if self._on_proxy in self._core.registry.on_proxy:
            self._core.registry.on_proxy.remove(self._on_proxy)

    def _on_proxy(self, host: str, proxy_id: str, proxy: Proxy | None) -> None:
        if proxy_id == self._proxy.id and proxy is not None and proxy != self._proxy:
            self._proxy = proxy
            self.changed(list(self._watched))


def accept(core: Core, peer: Any, first: Request) -> DirectClient:
    """See :data:`retia.xds.server.Accept`."""
    host = host_of(peer, core.trust_domain)
    state = core.registry.hosts.get(host)
    proxy = state.proxies.get(first.node_id) if state else None
    if proxy is None:
        raise Refused(f"no proxy {first.node_id!r} is registered on host {host}")
    return DirectClient(core, host, proxy.proxy)
