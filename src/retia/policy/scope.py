"""What one proxy sees of the mesh: ``exportTo`` of services, and the Sidecar that holds for it.

A service that is not seen is as if it didn't exist: its name is unknown, and rules that send requests to it
find no destination. Which Sidecar: the oldest of the proxy's namespace that selects it, else the oldest there
that selects nobody in particular, else the oldest such of the root namespace. Gateways have none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from retia.model.ids import MESH_NAMESPACE, Host, qualify
from retia.model.mesh import Protocol, ProxyKind, Service, labels_match, labels_of
from retia.model.objects import ConfigObject, ObjectRef
from retia.model.resource import Provenance
from retia.model.snapshot import View
from retia.policy.indexes import objects, uses
from retia.policy.visibility import visible

UNIX = "unix://"


@dataclass(frozen=True, slots=True)
class Egress:
    """Hosts that are seen: pairs of a namespace (``*``: any; empty: none) and a host, wildcard or ``*``.

    ``port`` 0: at all ports.
    """

    hosts: tuple[tuple[str, str], ...]
    port: int = 0


@dataclass(frozen=True, slots=True)
class Ingress:
    """What a Sidecar says of one port of the workload."""

    port: int
    field: str
    protocol: Protocol | None = None
    """``None``: as it is."""
    address: str = ""
    """``unix://`` and a path in place of the program's own address."""
    app_port: int = 0
    """0: as it is."""
    pool: Any = None
    """Its ``connectionPool``, as written."""


@dataclass(frozen=True, slots=True)
class Scope:
    """A Sidecar as it holds for one proxy. ``egress`` ``None``: everything that is exported is seen."""

    ref: ObjectRef
    egress: tuple[Egress, ...] | None = None
    ingress: tuple[Ingress, ...] = ()
    allow_any: bool | None = None
    """``None``: as the mesh says."""
    egress_proxy: tuple[Host, int, str] | None = None
    """Host, port and subset."""
    pool: Any = None
    """The ``connectionPool`` of all its ports, as written."""

    @property
    def provenance(self) -> tuple[Provenance, ...]:
        return (Provenance(self.ref),)


def scope(view: View) -> Scope | None:
    """The Sidecar of this proxy; ``None``: none holds for it."""
    if not uses(view, "sidecars") or view.proxy("kind") is not ProxyKind.SIDECAR:
        return None
    return view.query(_scope, "")


def allow_any(view: View) -> bool:
    """Whether unknown destinations are passed on."""
    found = scope(view)
    if found is not None and found.allow_any is not None:
        return found.allow_any
    settings = view.fact("mesh")
    return settings is None or bool(settings.outbound_allow_any)


def egress_proxy(view: View) -> tuple[Host, int, str] | None:
    """Host, port and subset of what takes the traffic to unknown hosts; ``None``: it goes where it will."""
    found = scope(view)
    return found.egress_proxy if found is not None else None


def is_seen(view: View, service: Service, port: int = 0) -> bool:
    """Whether this proxy may know a service; ``port`` 0: at any of its ports."""
    namespace = view.proxy("namespace")
    if service.export_to and not visible(service.export_to, service.namespace, namespace):
        return False
    found = scope(view)
    if found is None or found.egress is None:
        return True
    mine = (each for each in found.egress if not port or each.port in (0, port))
    return any(_means(pair, service) for each in mine for pair in each.hosts)


def takes_rules(view: View, namespace: str, host: str) -> bool:
    """Whether this proxy takes the rules for ``host`` that an object of ``namespace`` has (Istio: what a
    Sidecar's ``egress`` names are services and VirtualServices alike, each by its own namespace)."""
    found = scope(view)
    if found is None or found.egress is None:
        return True
    return any(_covers(pair, namespace, host) for each in found.egress for pair in each.hosts)


def _means(pair: tuple[str, str], service: Service) -> bool:
    return _covers(pair, service.namespace, service.host)


def _covers(pair: tuple[str, str], wanted_namespace: str, wanted_host: str) -> bool:
    namespace, host = pair
    if namespace not in ("*", wanted_namespace):
        return False
    if host in ("*", wanted_host):
        return True
    # A wildcard means what is below it, and the wildcards below it.
    return host.startswith("*.") and wanted_host.removeprefix("*").endswith(host[1:])


# -- reading -----------------------------------------------------------------------------------------------


def _scope(view: View, _key: str) -> Scope | None:
    chosen = _choose(view)
    if chosen is None:
        return None
    spec, namespace = chosen.spec, view.proxy("namespace")
    suffix = _suffix(view)
    policy = spec.outbound_traffic_policy
    proxy = policy.egress_proxy if policy is not None else None
    return Scope(
        chosen.ref,
        tuple(_egress(each, namespace, suffix) for each in spec.egress) if spec.egress else None,
        tuple(_ingress(each, index) for index, each in enumerate(spec.ingress)),
        None if policy is None else str(policy.mode) == "ALLOW_ANY",
        None
        if proxy is None
        else (qualify(proxy.host, chosen.ref.namespace, suffix), proxy.port.number, proxy.subset),
        spec.inbound_connection_pool,
    )


def _suffix(view: View) -> str:
    settings = view.fact("mesh")
    return settings.dns_suffix if settings is not None else "svc.cluster.local"


def _choose(view: View) -> ConfigObject | None:
    namespace, labels = view.proxy("namespace"), view.proxy("labels")
    own = objects(view, "sidecar-namespace", namespace)
    for obj in own:
        selector = obj.spec.workload_selector
        if selector is not None and selector.labels and labels_match(labels_of(selector.labels), labels):
            return obj
    root = objects(view, "sidecar-namespace", MESH_NAMESPACE) if namespace != MESH_NAMESPACE else ()
    rest = (*own, *root)
    return next((o for o in rest if not (o.spec.workload_selector and o.spec.workload_selector.labels)), None)


def _egress(each: Any, namespace: str, suffix: str) -> Egress:
    hosts = []
    for text in each.hosts:
        where, _, host = text.partition("/")
        where = {".": namespace, "~": ""}.get(where, where)
        near = where if where not in ("", "*") else namespace
        hosts.append((where, host if host.startswith("*") else str(qualify(host, near, suffix))))
    return Egress(tuple(hosts), each.port.number if each.port is not None else 0)


def _ingress(each: Any, index: int) -> Ingress:
    address, port = "", each.port.target_port or 0
    if each.default_endpoint.startswith(UNIX):
        address = each.default_endpoint
    elif each.default_endpoint:
        port = int(each.default_endpoint.rpartition(":")[2])
    return Ingress(
        each.port.number,
        f"spec.ingress[{index}]",
        each.port.speaks if each.port.protocol else None,
        address,
        port,
        each.connection_pool,
    )
