"""Which HTTP filters a chain has, and in which order a request meets them.

Every filter is there because an object asked for it: a feature says, for a proxy and a place, which filters
it needs (:data:`FEATURES`), and for a route what they do there (:data:`ROUTE_FEATURES`). A filter that only
some routes need is put in ``disabled``: Envoy then runs it on the routes that bring a configuration of their
own, and on the others it costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from envoy.extensions.filters.http.dynamic_forward_proxy.v3 import dynamic_forward_proxy_pb2
from envoy.extensions.filters.http.fault.v3 import fault_pb2
from envoy.extensions.filters.http.on_demand.v3 import on_demand_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2

from retia.model.resource import Provenance
from retia.model.snapshot import View
from retia.policy.http_policy import gateway_handling, port_handling
from retia.policy.indexes import uses
from retia.policy.overload import gateway_overload, port_overload
from retia.policy.ratelimit import gateway_limits, port_limits
from retia.policy.routing.forms import Fault, HttpRule
from retia.translate import cors, http_policies, overload, pb, rate_limits, sessions
from retia.translate.filters import (
    Feature,
    HttpFilter,
    Order,
    Packed,
    Place,
    PortFeature,
    RouteConfig,
    RouteFeature,
)
from retia.translate.forward_proxy import put_dns_cache
from retia.translate.lanes import lane_filters, lane_route
from retia.translate.rollouts import rollout_filters

__all__ = [
    "FEATURES",
    "ROUTE_FEATURES",
    "HttpFilter",
    "Order",
    "Place",
    "RouteConfig",
    "chain_filters",
    "gateway_provenance",
    "needs_http",
    "port_provenance",
    "put_host_features",
    "put_route_features",
]

FAULT = "envoy.filters.http.fault"
ON_DEMAND = "envoy.filters.http.on_demand"
ROUTER = "envoy.filters.http.router"
FORWARD = "envoy.filters.http.dynamic_forward_proxy"

ON_DEMAND_TIMEOUT_S = 5.0
"""How long a request waits for a cluster that is being asked for; then 503. Envoy's own default."""


def chain_filters(
    view: View, place: Place, *, on_demand: bool, forward_proxy: bool = False, port: int = 0
) -> tuple[HttpFilter, ...]:
    """The filters of a chain in order, the router last.

    ``on_demand``: virtual hosts and clusters are asked for when a request needs them. ``forward_proxy``:
    requests for hosts that no service has are passed on by name. ``port``: of the workload, for its chains.
    """
    found = [each for feature in FEATURES for each in feature(view, place)]
    if port:
        found += [each for feature in PORT_FEATURES for each in feature(view, port)]
    if on_demand:
        found.append(_ON_DEMAND)
    if forward_proxy or (place is not Place.INBOUND and uses(view, "dynamic-dns")):
        found.append(HttpFilter(Order.FORWARD, FORWARD, _forward_proxy()))
    # The gates of rollouts look at what callers counted, and rules may ask for statistics of their own.
    counting = place is not Place.INBOUND and (uses(view, "rollouts") or uses(view, "route-statistics"))
    found.append(_COUNTING_ROUTER if counting else _ROUTER)
    return tuple(sorted(found, key=lambda each: (each.order, each.name)))


def needs_http(view: View, port: int = 0) -> bool:
    """Whether any object asks this proxy's inbound side to look into requests of that port (0: of any); else
    it passes bytes.

    Callers need not know: they open the same TLS to it and speak the application's own codec, which the
    proxy parses or not.
    """
    if port and overload.sheds(view, port):
        return True
    if port and any(True for feature in PORT_FEATURES for _ in feature(view, port)):
        return True
    return any(True for feature in FEATURES for _ in feature(view, Place.INBOUND))


def port_provenance(view: View, port: int) -> tuple[Provenance, ...]:
    """The policies that shape the chains of one port of the workload."""
    limits = view.query(port_limits, port).provenance
    return (*limits, *view.query(port_overload, port).provenance, *view.query(port_handling, port).provenance)


def gateway_provenance(view: View) -> tuple[Provenance, ...]:
    """The policies that shape the chains of this gateway."""
    limits = view.query(gateway_limits, "").provenance
    overloads = view.query(gateway_overload, "").provenance
    return (*limits, *overloads, *view.query(gateway_handling, "").provenance)


def put_host_features(virtual_host: Any, scene: Any, rules: Iterable[HttpRule]) -> None:
    """Tell the filters what rules ask of them together, at their virtual host. ``scene`` (see ``rules``)
    notes what it takes."""
    found = rate_limits.host_limits(scene.view, rules)
    for each in found.configs:
        pb.put(virtual_host.typed_per_filter_config[each.name], each.config)
    scene.clusters.update(ref.name for ref in found.refs)
    scene.provenance.extend(found.provenance)


def put_route_features(route: Any, view: View, rule: HttpRule) -> None:
    """Tell the filters what a rule asks of them on its routes."""
    for feature in ROUTE_FEATURES:
        for each in feature(view, rule):
            pb.put(route.typed_per_filter_config[each.name], each.config)


# -- faults ------------------------------------------------------------------------------------------------


def _faults(view: View, place: Place) -> Iterable[HttpFilter]:
    if place is not Place.INBOUND and uses(view, "faults"):
        yield HttpFilter(Order.FAULT, FAULT, _NO_FAULT)


def _fault_of(_view: View, rule: HttpRule) -> Iterable[RouteConfig]:
    if rule.fault is not None:
        yield RouteConfig(FAULT, pb.packed(_fault(rule.fault)))


def _fault(fault: Fault) -> fault_pb2.HTTPFault:
    message = fault_pb2.HTTPFault()
    if fault.delay_s is not None:
        pb.duration(message.delay.fixed_delay, fault.delay_s)
        pb.millionths(message.delay.percentage, fault.delay_share)
    if fault.abort_share:
        if fault.abort_grpc is not None:
            message.abort.grpc_status = fault.abort_grpc
        else:
            message.abort.http_status = fault.abort_status
        pb.millionths(message.abort.percentage, fault.abort_share)
    return message


# -- what chains are made of -------------------------------------------------------------------------------


def _router(*, counting: bool) -> Packed:
    """``counting``: answers are counted and timed by cluster."""
    router = router_pb2.Router()
    router.suppress_envoy_headers = True
    router.dynamic_stats.value = counting
    return pb.packed(router)


def _on_demand() -> Packed:
    config = on_demand_pb2.OnDemand()
    pb.from_ads(config.odcds.source)
    pb.duration(config.odcds.timeout, ON_DEMAND_TIMEOUT_S)
    return pb.packed(config)


def _forward_proxy() -> Packed:
    config = dynamic_forward_proxy_pb2.FilterConfig()
    put_dns_cache(config.dns_cache_config)
    return pb.packed(config)


_NO_FAULT = pb.packed(fault_pb2.HTTPFault())
_ROUTER = HttpFilter(Order.ROUTER, ROUTER, _router(counting=False))
_COUNTING_ROUTER = HttpFilter(Order.ROUTER, ROUTER, _router(counting=True))
_ON_DEMAND = HttpFilter(Order.ON_DEMAND, ON_DEMAND, _on_demand())

FEATURES: tuple[Feature, ...] = (
    cors.filters,
    sessions.filters,
    _faults,
    lane_filters,
    rollout_filters,
    rate_limits.limit_filters,
    overload.overload_filters,
    http_policies.handling_filters,
)
"""What may put filters into chains."""
PORT_FEATURES: tuple[PortFeature, ...] = (
    rate_limits.port_filters,
    overload.port_filters,
    http_policies.port_filters,
)
"""What may put filters into the chains of one port of a workload."""
ROUTE_FEATURES: tuple[RouteFeature, ...] = (cors.of_route, sessions.of_route, _fault_of, lane_route)
"""What may configure them on routes."""
