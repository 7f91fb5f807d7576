"""Which HTTP filters a chain has, and in which order a request meets them.

Every filter is there because an object asked for it: a feature says, for a proxy and a place, which filters
it needs (:data:`FEATURES`), and for a route what they do there (:data:`ROUTE_FEATURES`). A filter that only
some routes need is put in ``disabled``: Envoy then runs it on the routes that bring a configuration of their
own, and on the others it costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Any

from envoy.extensions.filters.http.dynamic_forward_proxy.v3 import dynamic_forward_proxy_pb2
from envoy.extensions.filters.http.fault.v3 import fault_pb2
from envoy.extensions.filters.http.on_demand.v3 import on_demand_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2

from retia.model.snapshot import View
from retia.policy.indexes import uses
from retia.policy.routing.forms import Fault, HttpRule
from retia.translate import pb
from retia.translate.forward_proxy import put_dns_cache

FAULT = "envoy.filters.http.fault"
ON_DEMAND = "envoy.filters.http.on_demand"
ROUTER = "envoy.filters.http.router"
FORWARD = "envoy.filters.http.dynamic_forward_proxy"

ON_DEMAND_TIMEOUT_S = 5.0
"""How long a request waits for a cluster that is being asked for; then 503. Envoy's own default."""

Packed = tuple[str, bytes]
"""A message's type URL and bytes, as :func:`retia.translate.pb.packed` makes them."""


class Place(StrEnum):
    """Where in the mesh a chain stands."""

    OUTBOUND = "outbound"
    """In the caller's sidecar."""
    INBOUND = "inbound"
    """In the called one's sidecar."""
    GATEWAY = "gateway"
    """In an ingress or egress gateway."""


class Order(IntEnum):
    """The order of filters in a chain: find the destination, prove, allow, limit, change."""

    ON_DEMAND = 0
    CORS = 10
    LANE = 20
    AUTHENTICATION = 30
    AUTHORIZATION = 40
    FAULT = 50
    LOCAL_LIMIT = 60
    GLOBAL_LIMIT = 61
    ADMISSION = 62
    CONCURRENCY = 63
    BODY_LIMIT = 70
    GRPC_WEB = 80
    TRANSCODER = 81
    CACHE = 85
    COMPRESSOR = 90
    SESSION = 95
    FORWARD = 98
    ROUTER = 99


@dataclass(frozen=True, slots=True)
class HttpFilter:
    """One filter of a chain."""

    order: Order
    name: str
    config: Packed
    disabled: bool = False
    """Only on routes that have a configuration for it."""


@dataclass(frozen=True, slots=True)
class RouteConfig:
    """What a filter does on one route."""

    name: str
    config: Packed


Feature = Callable[[View, Place], Iterable[HttpFilter]]
RouteFeature = Callable[[View, HttpRule], Iterable[RouteConfig]]


def chain_filters(
    view: View, place: Place, *, on_demand: bool, forward_proxy: bool = False
) -> tuple[HttpFilter, ...]:
    """The filters of a chain in order, the router last.

    ``on_demand``: virtual hosts and clusters are asked for when a request needs them. ``forward_proxy``:
    requests for hosts that no service has are passed on by name.
    """
    found = [each for feature in FEATURES for each in feature(view, place)]
    if on_demand:
        found.append(_ON_DEMAND)
    if forward_proxy:
        found.append(HttpFilter(Order.FORWARD, FORWARD, _forward_proxy()))
    found.append(_ROUTER)
    return tuple(sorted(found, key=lambda each: (each.order, each.name)))


def needs_http(view: View) -> bool:
    """Whether any object asks this proxy's inbound side to look into requests; else it passes bytes.

    Callers need not know: they open the same TLS to it and speak the application's own codec, which the
    proxy parses or not.
    """
    return any(True for feature in FEATURES for _ in feature(view, Place.INBOUND))


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


def _router() -> Packed:
    router = router_pb2.Router()
    router.suppress_envoy_headers = True
    router.dynamic_stats.value = False
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
_ROUTER = HttpFilter(Order.ROUTER, ROUTER, _router())
_ON_DEMAND = HttpFilter(Order.ON_DEMAND, ON_DEMAND, _on_demand())

FEATURES: tuple[Feature, ...] = (_faults,)
"""What may put filters into chains."""
ROUTE_FEATURES: tuple[RouteFeature, ...] = (_fault_of,)
"""What may configure them on routes."""
