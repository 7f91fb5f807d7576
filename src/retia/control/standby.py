"""What a workload might call and hasn't yet: the names of the *standby copy* that its agent keeps on disk.

The copy answers when the controller is away. It goes out at the lowest priority, in small batches; afterwards
only what has changed does. Here no list of what each agent has is kept (that would be names times workloads):
a copy is described by the revision up to which it is complete, and a log says at which revision each name has
last changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import takewhile

from retia.model.ids import Host
from retia.model.mesh import Proxy, ProxyKind, Service
from retia.model.resource import Name, TypeUrl
from retia.translate.names import EXPLICIT, HostName, TcpDial, parse_dialled_listener
from retia.xds.stream import LISTED
from retia.xds.wire import PLACEHOLDER

MOST_NAMES = 20_000
"""Names of one workload's copy; beyond that many the copy is cut short, in order of name. Arbitrary: about
20 MB on disk."""


_COPIED = (TypeUrl.VIRTUAL_HOST, TypeUrl.CLUSTER, TypeUrl.ENDPOINTS)


class ChangeLog:
    """At which revision each name, and each service, has last changed; the latest stand last."""

    def __init__(self) -> None:
        self.revision = 1
        self._names: dict[Name, int] = {}
        self._hosts: dict[Host, int] = {}

    def note(self, names: Iterable[Name], hosts: Iterable[Host]) -> None:
        self.revision += 1
        for name in names:
            if _is_copied(name):
                self._names.pop(name, None)
                self._names[name] = self.revision
        for host in hosts:
            self._hosts.pop(host, None)
            self._hosts[host] = self.revision

    def names_since(self, revision: int) -> list[Name]:
        """The names that changed after ``revision``."""
        latest = takewhile(lambda item: item[1] > revision, reversed(self._names.items()))
        return [name for name, _ in latest]

    def hosts_since(self, revision: int) -> list[Host]:
        """The services that came, went or changed after ``revision``."""
        latest = takewhile(lambda item: item[1] > revision, reversed(self._hosts.items()))
        return [host for host, _ in latest]


def _is_copied(name: Name) -> bool:
    if name.type is TypeUrl.LISTENER:
        # Those within the proxy, which clusters lead to; the others are the proxy's own and never asked for.
        return parse_dialled_listener(name.name) is not None
    return name.type in _COPIED and name.name != LISTED and not name.name.endswith(PLACEHOLDER)


def concerns(proxy: Proxy, name: Name) -> bool:
    """Whether a changed name may belong to a proxy's copy."""
    if name.type is TypeUrl.VIRTUAL_HOST:
        return name.name.startswith(f"{EXPLICIT}/") == bool(proxy.explicit_port)
    return not name.name.startswith(("inbound|", "outbound_."))


def names_for(proxy: Proxy, services: Iterable[Service]) -> Iterator[Name]:
    """The names that a proxy would ask for to reach each service on each of its ports."""
    if proxy.kind is not ProxyKind.SIDECAR:
        return
    count = 0
    for service in sorted(services, key=lambda s: s.host):
        for name in _names_of(proxy, service):
            count += 1
            if count > MOST_NAMES:
                return
            yield name


def _names_of(proxy: Proxy, service: Service) -> Iterator[Name]:
    for port in service.ports:
        authority = f"{service.host}:{port.number}"
        if proxy.explicit_port:
            yield Name(TypeUrl.VIRTUAL_HOST, str(HostName(EXPLICIT, authority)))
            continue
        tcp = not port.protocol.is_http
        if not tcp or port.protocol == "auto":
            yield Name(TypeUrl.VIRTUAL_HOST, str(HostName(str(port.number), authority)))
        if tcp and service.vip:
            yield Name(TypeUrl.CLUSTER, str(TcpDial(service.vip, port.number)))
