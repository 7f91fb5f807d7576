"""Which objects belong together: the entries that each kind of object makes in the indexes of a snapshot.

An index answers "which objects concern this?" in one read: ``view.index("vs-host", host)``. An entry's value
is the references of its objects, the oldest first. A new kind of object says here by what it is found; the
keeping of entries is :class:`retia.policy.facts.FactBase`'s.

==================  ==============================  ===================================================
index               key                             objects
==================  ==============================  ===================================================
``vs-host``         host or wildcard                VirtualServices that name it
``dr-host``         host or wildcard                DestinationRules for it
``credential``      name of a Secret                DestinationRules that name it
``vs-gateway``      ``namespace/name``               VirtualServices that are bound to that Gateway
``gateway``         ``label=value``, or empty       Gateways whose selector begins with that label
``ef-namespace``    namespace                       EnvoyFilters in it
``sidecar-namespace``  namespace                    Sidecars in it
``pa-namespace``    namespace                       PeerAuthentications for all of it
``pa-label``        ``namespace/label=value``       PeerAuthentications there whose selector begins so
``redis-host``      host                            RedisRoutes for it
``rollout-host``    host                            Rollouts of it
``lanes``           nothing                         all TrafficLanes
``rate-limits``     a target (``policy.targets``)   RateLimitPolicies for it
``overload``        a target                        OverloadPolicies for it
``http-policies``   a target                        HttpPolicies for it
``route-parent``    ``Gateway/namespace/name``       routes whose ``parentRefs`` name it (also ``Service/…``,
                                                    ``ListenerSet/…``)
``listener-set``    ``namespace/name``               ListenerSets for that Gateway of the Gateway API
``grants``          namespace                       ReferenceGrants in it
``backend-tls``     ``namespace/name``               BackendTLSPolicies for that Service
``uses``            a feature (``faults``)          whether any object asks for it; the value is ``("any",)``
                                                    so that a second such object changes nothing
==================  ==============================  ===================================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from retia.model.ids import MESH_GATEWAY, gateway_name, qualify
from retia.model.mesh import MeshSettings
from retia.model.objects import ConfigObject, ObjectRef
from retia.model.snapshot import View
from retia.policy.targets import has_routes, places

Entry = tuple[str, str]
"""An index and a key in it."""
Indexer = Callable[[ConfigObject, MeshSettings], Iterator[Entry]]

FLAGS = frozenset({"uses"})
"""Indexes that say only whether there is any object."""


def objects(view: View, index: str, key: str) -> tuple[ConfigObject, ...]:
    """The objects of an index entry, the oldest first."""
    found = (view.fact("config", *ref.key) for ref in refs(view, index, key))
    return tuple(obj for obj in found if obj is not None)


def refs(view: View, index: str, key: str) -> tuple[ObjectRef, ...]:
    """The references of an index entry, the oldest object first."""
    return view.index(index, key)


def uses(view: View, feature: str) -> bool:
    """Whether any object of the mesh asks for a feature, so that a filter must be in the chains."""
    return bool(view.index("uses", feature))


def entries(obj: ConfigObject, settings: MeshSettings) -> frozenset[Entry]:
    """All entries of an object. One whose spec could not be read has those that need no spec."""
    indexer = INDEXERS.get(obj.ref.kind)
    return frozenset(indexer(obj, settings)) if indexer is not None else frozenset()


def _virtual_service(obj: ConfigObject, settings: MeshSettings) -> Iterator[Entry]:
    for host in obj.spec.hosts:
        yield "vs-host", qualify(host, obj.ref.namespace, settings.dns_suffix)
    for written in obj.spec.gateways:
        if written != MESH_GATEWAY:
            yield "vs-gateway", gateway_name(written, obj.ref.namespace)
    if any(rule.fault is not None for rule in obj.spec.http):
        yield "uses", "faults"
    if any(rule.cors_policy is not None for rule in obj.spec.http):
        yield "uses", "cors"
    if any(block.stat_prefix for rule in obj.spec.http for block in rule.match):
        yield "uses", "route-statistics"


def _gateway(obj: ConfigObject, _settings: MeshSettings) -> Iterator[Entry]:
    yield "gateway", "=".join(obj.spec.selector[0]) if obj.spec.selector else ""


def _destination_rule(obj: ConfigObject, settings: MeshSettings) -> Iterator[Entry]:
    yield "dr-host", qualify(obj.spec.host, obj.ref.namespace, settings.dns_suffix)
    policies = [obj.spec.traffic_policy, *(subset.traffic_policy for subset in obj.spec.subsets)]
    for policy in (each for each in policies if each is not None):
        for tls in (policy.tls, *(port.tls for port in policy.port_level_settings)):
            if tls is not None and tls.credential_name:
                yield "credential", tls.credential_name


def _envoy_filter(obj: ConfigObject, _settings: MeshSettings) -> Iterator[Entry]:
    yield "ef-namespace", obj.ref.namespace
    yield "uses", "patches"


def _sidecar(obj: ConfigObject, _settings: MeshSettings) -> Iterator[Entry]:
    yield "sidecar-namespace", obj.ref.namespace
    yield "uses", "sidecars"


def _service_entry(obj: ConfigObject, _settings: MeshSettings) -> Iterator[Entry]:
    if str(obj.spec.resolution) == "DYNAMIC_DNS":
        yield "uses", "dynamic-dns"


def _peer_authentication(obj: ConfigObject, _settings: MeshSettings) -> Iterator[Entry]:
    selector = obj.spec.selector.match_labels if obj.spec is not None and obj.spec.selector else ()
    if selector:
        key, value = selector[0]
        yield "pa-label", f"{obj.ref.namespace}/{key}={value}"
        yield "uses", f"selected-authentication in {obj.ref.namespace}"
    else:
        yield "pa-namespace", obj.ref.namespace


def _redis_route(obj: ConfigObject, settings: MeshSettings) -> Iterator[Entry]:
    yield "redis-host", qualify(obj.spec.host, obj.ref.namespace, settings.dns_suffix)


def _rollout(obj: ConfigObject, settings: MeshSettings) -> Iterator[Entry]:
    yield "rollout-host", qualify(obj.spec.service, obj.ref.namespace, settings.dns_suffix)
    yield "uses", "rollouts"


def _traffic_lane(obj: ConfigObject, _settings: MeshSettings) -> Iterator[Entry]:
    yield "lanes", ""
    yield "uses", "lanes"
    if obj.spec.entry is not None and obj.spec.match:
        yield "uses", "lane-entries"


def _rate_limit_policy(obj: ConfigObject, _settings: MeshSettings) -> Iterator[Entry]:
    for place in places(obj):
        yield "rate-limits", place
    if has_routes(obj):
        yield "uses", "route-limits"
    if any(str(limit.scope) == "Global" for limit in obj.spec.limits):
        yield "uses", "global-limits"


def _overload_policy(obj: ConfigObject, _settings: MeshSettings) -> Iterator[Entry]:
    for place in places(obj):
        yield "overload", place


def _http_policy(obj: ConfigObject, _settings: MeshSettings) -> Iterator[Entry]:
    for place in places(obj):
        yield "http-policies", place


def _route(obj: ConfigObject, _settings: MeshSettings) -> Iterator[Entry]:
    """A route of the Gateway API."""
    for parent in obj.spec.parent_refs:
        yield "route-parent", f"{parent.kind}/{parent.namespace or obj.ref.namespace}/{parent.name}"
    for rule in obj.spec.rules:
        if getattr(rule, "session_persistence", None) is not None:
            yield "uses", "sessions"
        if any(getattr(each, "cors", None) is not None for each in _route_filters(rule)):
            yield "uses", "cors"


def _route_filters(rule: Any) -> Iterator[Any]:
    yield from getattr(rule, "filters", ())
    for ref in rule.backend_refs:
        yield from getattr(ref, "filters", ())


def _listener_set(obj: ConfigObject, _settings: MeshSettings) -> Iterator[Entry]:
    parent = obj.spec.parent_ref
    yield "listener-set", f"{parent.namespace or obj.ref.namespace}/{parent.name}"


def _reference_grant(obj: ConfigObject, _settings: MeshSettings) -> Iterator[Entry]:
    yield "grants", obj.ref.namespace


def _backend_tls_policy(obj: ConfigObject, _settings: MeshSettings) -> Iterator[Entry]:
    for ref in obj.spec.target_refs:
        yield "backend-tls", f"{obj.ref.namespace}/{ref.name}"


INDEXERS: Mapping[str, Indexer] = MappingProxyType(
    {
        "VirtualService": _virtual_service,
        "DestinationRule": _destination_rule,
        "ServiceEntry": _service_entry,
        "Sidecar": _sidecar,
        "Gateway": _gateway,
        "EnvoyFilter": _envoy_filter,
        "PeerAuthentication": _peer_authentication,
        "HTTPRoute": _route,
        "GRPCRoute": _route,
        "TCPRoute": _route,
        "TLSRoute": _route,
        "ListenerSet": _listener_set,
        "XListenerSet": _listener_set,
        "ReferenceGrant": _reference_grant,
        "BackendTLSPolicy": _backend_tls_policy,
        "RateLimitPolicy": _rate_limit_policy,
        "OverloadPolicy": _overload_policy,
        "HttpPolicy": _http_policy,
        "RedisRoute": _redis_route,
        "Rollout": _rollout,
        "TrafficLane": _traffic_lane,
    }
)
"""By kind."""
