"""Which of Retia's own policies hold for a place: a port of a workload, a gateway, a rule of a route.

The keys of the index entries that are read here are made by :mod:`retia.policy.targets`.
"""

from __future__ import annotations

from collections.abc import Iterator

from retia.model.ids import MESH_NAMESPACE, service_host
from retia.model.mesh import ProxyKind, labels_match
from retia.model.objects import ConfigObject, ObjectRef
from retia.model.snapshot import View
from retia.policy.edge import edge_servers
from retia.policy.gateway_api.listeners import gateway_of
from retia.policy.indexes import objects
from retia.policy.registry import mesh, service
from retia.policy.targets import kind_of


def at_port(view: View, index: str, number: int) -> tuple[ConfigObject, ...]:
    """The policies for one port of this proxy's own workload, the oldest first."""
    found = [*_of_workload(view, index)]
    for host, service_port in _services(view, number):
        known = service(view, host)
        if known is None:
            continue
        port = known.port(service_port)
        names = {"", str(service_port), port.name if port is not None else ""}
        key = f"Service/{known.namespace}/{known.name}"
        found += [o for o in objects(view, index, key) if names & _sections(o, "Service", known.name)]
    return _ordered(found)


def at_gateway(view: View, index: str) -> tuple[ConfigObject, ...]:
    """The policies for this gateway proxy, the oldest first; none for other proxies."""
    if view.proxy("kind") is not ProxyKind.GATEWAY:
        return ()
    owners = dict.fromkeys(server.ref for server in view.query(edge_servers, "").servers)
    gateway = gateway_of(view)
    if gateway is not None:  # it may serve nothing itself, and its ListenerSets much
        owners[gateway.ref] = None
    found = [*_of_workload(view, index)]
    for ref in owners:
        found += objects(view, index, str(ref))
    return _ordered(found)


def at_rule(view: View, index: str, ref: ObjectRef, name: str) -> tuple[ConfigObject, ...]:
    """The policies for one rule (``name``, perhaps empty) of a route, the oldest first."""
    wanted = {"", name}
    return tuple(o for o in objects(view, index, str(ref)) if wanted & _sections(o, ref.kind, ref.name))


def _of_workload(view: View, index: str) -> Iterator[ConfigObject]:
    """Those without references: for the mesh, for a namespace, for selected workloads."""
    namespace, labels = view.proxy("namespace"), view.proxy("labels")
    for each in dict.fromkeys((MESH_NAMESPACE, namespace)):
        for obj in objects(view, index, f"namespace/{each}"):
            selector = obj.spec.selector.match_labels if obj.spec.selector is not None else ()
            if labels_match(selector, labels):
                yield obj


def _services(view: View, number: int) -> tuple[tuple[str, int], ...]:
    """The services that this proxy's workload is behind with that port, with their ports.

    The one that the workload names itself counts while its application isn't listening, too.
    """
    address = f"{view.proxy('inbound_address')}:{number}@{view.proxy('host')}"
    found = list(view.index("address", address))
    workload = view.fact("workload", view.proxy("workload") or "")
    if workload is not None and workload.service:
        own = service_host(workload.service, workload.namespace, mesh(view).dns_suffix)
        found.append((own, number))
    return tuple(dict.fromkeys(found))


def _sections(obj: ConfigObject, kind: str, name: str) -> set[str]:
    """The parts of a target that a policy names."""
    return {r.section_name for r in obj.spec.target_refs if kind_of(r) == kind and r.name == name}


def _ordered(found: list[ConfigObject]) -> tuple[ConfigObject, ...]:
    return tuple(sorted(dict.fromkeys(found), key=lambda each: each.order))
