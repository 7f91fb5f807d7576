"""Building what an object shapes before it is stored, to hear what building has to say against it.

Some rules can't be checked in one document: a limit on what several objects make together, a field that
cannot be honoured for the destination that it turns out to have. Building says so in its findings; here the
new objects are laid over the newest snapshot, and the virtual hosts and clusters of the hosts that they name
are built once, for a proxy of nobody in particular.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from retia.model.finding import Finding
from retia.model.ids import Host, HostId, ProxyId, qualify
from retia.model.mesh import MeshSettings, Proxy, ProxyKind
from retia.model.objects import ConfigObject
from retia.model.resource import Name, TypeUrl
from retia.model.snapshot import FactKey, Snapshot
from retia.policy.indexes import FLAGS, entries
from retia.translate.names import HostName, Outbound
from retia.translate.translate import build, listed
from retia.xds.cache import Engine

MOST_NAMES = 500
"""Resources that are tried of one batch. Arbitrary; the others are tried when a proxy asks for them."""


def tried(snapshot: Snapshot, objects: Iterable[ConfigObject]) -> tuple[Finding, ...]:
    """What building says of the objects."""
    fresh = list(objects)
    engine = Engine(_with(snapshot, fresh), build, listed)
    mine = {obj.ref for obj in fresh}
    found: dict[Finding, None] = {}
    for count, (proxy, name) in enumerate(_names(snapshot, fresh)):
        if count >= MOST_NAMES:
            break
        resource = engine.resource(proxy, name)
        found.update((each, None) for each in resource.findings if each.ref in mine)
    return tuple(found)


def _with(snapshot: Snapshot, objects: list[ConfigObject]) -> Snapshot:
    """The snapshot with the objects in it. Services that they would make are not."""
    settings = _settings(snapshot)
    changes: dict[FactKey, Any] = {}
    for obj in objects:
        changes["config", *obj.ref.key] = obj
        for index, key in entries(obj, settings):
            place = ("index", index, key)
            known = changes.get(place) or snapshot.get(place) or ()
            if index in FLAGS:
                changes[place] = ("any",)
            elif obj.ref not in known:
                changes[place] = (*known, obj.ref)
    return snapshot.with_changes(changes)[0]


def _names(snapshot: Snapshot, objects: list[ConfigObject]) -> Iterator[tuple[Proxy, Name]]:
    suffix = _settings(snapshot).dns_suffix
    for obj in objects:
        proxy = _proxy(obj)
        if obj.ref.kind == "VirtualService":
            for host in obj.spec.hosts:
                full = qualify(host, obj.ref.namespace, suffix)
                for port in _ports(snapshot, full):
                    name = str(HostName(str(port), f"{full}:{port}"))
                    yield proxy, Name(TypeUrl.VIRTUAL_HOST, name)
        elif obj.ref.kind == "DestinationRule":
            full = qualify(obj.spec.host, obj.ref.namespace, suffix)
            for port in _ports(snapshot, full):
                for subset in ("", *(each.name for each in obj.spec.subsets)):
                    yield proxy, Name(TypeUrl.CLUSTER, str(Outbound(port, subset, full)))


def _ports(snapshot: Snapshot, host: Host) -> tuple[int, ...]:
    service = snapshot.get(("service", host))
    return tuple(port.number for port in service.ports) if service is not None else ()


def _proxy(obj: ConfigObject) -> Proxy:
    return Proxy(
        ProxyId("-"),
        ProxyKind.SIDECAR,
        obj.ref.namespace,
        "default",
        HostId("-"),
        outbound_http_port=1,
        outbound_auto_port=2,
        outbound_tcp_port=3,
    )


def _settings(snapshot: Snapshot) -> MeshSettings:
    found: MeshSettings | None = snapshot.get(("mesh",))
    return found or MeshSettings()
