"""RateLimitPolicy as Envoy's filters.

A limit in requests is a *rate limit* (which says when it holds, and what is counted) and, for a local one, a
*descriptor* with a token bucket. Both stand in the filter's own configuration: in the chain of a port or
gateway, or, for a route's rule, at the virtual host. There one bucket serves all matches of the rule, since
the condition asks which rule made the route.

Global limits are asked for at the counting service, an ordinary service of the mesh, which therefore is
found, balanced and authenticated like any other. It needs no configuration: the first entry of each
descriptor says what it is and how much of it (:mod:`retia.model.limit`), the others what is counted apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from envoy.extensions.filters.http.bandwidth_limit.v3 import bandwidth_limit_pb2
from envoy.extensions.filters.http.local_ratelimit.v3 import local_rate_limit_pb2
from envoy.extensions.filters.http.ratelimit.v3 import rate_limit_pb2
from envoy.extensions.filters.network.connection_limit.v3 import connection_limit_pb2
from envoy.extensions.filters.network.local_ratelimit.v3 import local_rate_limit_pb2 as network_limit_pb2
from envoy.extensions.rate_limit_descriptors.expr.v3 import expr_pb2

from retia.model import limit as counting
from retia.model.ids import MESH_NAMESPACE, service_host
from retia.model.mesh import ProxyKind
from retia.model.resource import Name, Provenance, TypeUrl
from retia.model.snapshot import View
from retia.policy.indexes import uses
from retia.policy.ratelimit import (
    ConnectionLimit,
    Key,
    KeyKind,
    Limit,
    Limits,
    gateway_limits,
    port_limits,
    rule_limits,
)
from retia.policy.registry import mesh
from retia.policy.routing.forms import HttpRule
from retia.translate import pb
from retia.translate.expressions import ALWAYS, anyone_of, key_value, made_by
from retia.translate.filters import HttpFilter, Order, Packed, Place, RouteConfig
from retia.translate.names import Outbound

LOCAL = "envoy.filters.http.local_ratelimit"
GLOBAL = "envoy.filters.http.ratelimit"
SHADOW = ".shadow"
"""Counts and refuses nothing."""
DENY = ".deny"
"""Refuses while the counting service is away."""
ROUTE = ".route"
"""For single rules: does nothing but where a virtual host says what."""
BANDWIDTH = "envoy.filters.http.bandwidth_limit"
CONNECTIONS = "envoy.filters.network.connection_limit"
CONNECTION_RATE = "envoy.filters.network.local_ratelimit"

TIMEOUT_S = 0.1
"""How long a request waits for the counting service; then ``onUnavailable`` decides."""
UNAVAILABLE_STATUS = 503
MOST_COUNTERS = 10_000
"""Of values that a local limit counts apart; beyond it the least recently used begins anew."""
_UNLIMITED = 2**32 - 1
_EXPRESSION = "envoy.rate_limit_descriptors.expr"
_DRAFT_03 = 1
_ON = "on"

RouteLimit = tuple[Limit, str]
"""A limit, and the condition (CEL) that its rule made the route; :data:`ALWAYS` for all routes."""


def counter_cluster(view: View) -> str:
    """The cluster of the counting service."""
    host = service_host(counting.SERVICE, MESH_NAMESPACE, mesh(view).dns_suffix)
    return str(Outbound(counting.PORT, "", host))


def port_refs(view: View, number: int) -> tuple[Name, ...]:
    """What the proxy must have before the filters of that port are of use."""
    return _refs(view, view.query(port_limits, number).requests)


def gateway_refs(view: View) -> tuple[Name, ...]:
    """The same for the filters of a gateway."""
    return _refs(view, view.query(gateway_limits, "").requests)


def _refs(view: View, limits: Iterable[Limit]) -> tuple[Name, ...]:
    shared = any(limit.shared for limit in limits)
    return (Name(TypeUrl.CLUSTER, counter_cluster(view)),) if shared else ()


# -- where -------------------------------------------------------------------------------------------------


def port_filters(view: View, number: int) -> Iterator[HttpFilter]:
    """The filters of one port of the workload."""
    yield from _filters(view, view.query(port_limits, number))


def limit_filters(view: View, place: Place) -> Iterator[HttpFilter]:
    """The filters of a gateway, and those that wait for rules with limits."""
    if place is Place.GATEWAY:
        yield from _filters(view, view.query(gateway_limits, ""))
    if place is not Place.INBOUND and uses(view, "route-limits"):
        for suffix in (ROUTE, ROUTE + SHADOW):
            idle = local_rate_limit_pb2.LocalRateLimit(stat_prefix="retia")
            yield HttpFilter(Order.LOCAL_LIMIT, LOCAL + suffix, pb.packed(idle), disabled=True)
        if uses(view, "global-limits"):
            for suffix, deny in ((ROUTE, False), (ROUTE + DENY, True)):
                config = _global(view, (), "", deny=deny, headers=True)
                yield HttpFilter(Order.GLOBAL_LIMIT, GLOBAL + suffix, pb.packed(config), disabled=True)


@dataclass(frozen=True, slots=True)
class HostLimits:
    """What the waiting filters do at a virtual host."""

    configs: tuple[RouteConfig, ...] = ()
    refs: tuple[Name, ...] = ()
    provenance: tuple[Provenance, ...] = ()


def host_limits(view: View, rules: Iterable[HttpRule]) -> HostLimits:
    """What the waiting filters do at a virtual host with these rules."""
    if not uses(view, "route-limits"):
        return HostLimits()
    conditions: dict[Limit, list[str]] = {}
    provenance: list[Provenance] = []
    for rule in rules:
        if rule.ref is None:
            continue
        limits = view.query(rule_limits, (rule.ref, rule.name))
        for limit in limits.requests:
            conditions.setdefault(limit, []).append(f"({made_by(rule.ref, rule.field)})")
        provenance += limits.provenance
    # A limit for several rules counts their requests together.
    found = [(limit, " || ".join(dict.fromkeys(parts))) for limit, parts in conditions.items()]
    configs = tuple(_route_configs(view, found))
    refs = _refs(view, conditions)
    return HostLimits(configs, refs, tuple(dict.fromkeys(provenance)))


def _route_configs(view: View, limits: list[RouteLimit]) -> Iterator[RouteConfig]:
    caller = _caller(view)
    for suffix, shadow in ((ROUTE, False), (ROUTE + SHADOW, True)):
        chosen = [each for each in limits if not each[0].shared and each[0].shadow is shadow]
        if chosen:
            yield RouteConfig(LOCAL + suffix, pb.packed(_local(chosen, caller, shadow=shadow)))
    for suffix, deny in ((ROUTE, False), (ROUTE + DENY, True)):
        chosen = [each for each in limits if each[0].shared and each[0].deny is deny]
        if chosen:
            config = rate_limit_pb2.RateLimitPerRoute()
            for limit, condition in chosen:
                _put_actions(config.rate_limits.add(), limit, condition, caller)
            yield RouteConfig(GLOBAL + suffix, pb.packed(config))


def _filters(view: View, limits: Limits) -> Iterator[HttpFilter]:
    everywhere = [(limit, ALWAYS) for limit in limits.requests]
    for suffix, shadow in (("", False), (SHADOW, True)):
        chosen = [each for each in everywhere if not each[0].shared and each[0].shadow is shadow]
        if chosen:
            config = _local(chosen, "", shadow=shadow)
            yield HttpFilter(Order.LOCAL_LIMIT, LOCAL + suffix, pb.packed(config))
    for suffix, deny in (("", False), (DENY, True)):
        chosen = [each for each in everywhere if each[0].shared and each[0].deny is deny]
        if chosen:
            headers = any(limit.headers for limit, _ in chosen)
            shared = _global(view, chosen, "", deny=deny, headers=headers)
            yield HttpFilter(Order.GLOBAL_LIMIT, GLOBAL + suffix, pb.packed(shared))
    if limits.throttle is not None:
        yield HttpFilter(Order.LOCAL_LIMIT, BANDWIDTH, _bandwidth(limits.throttle.bytes_per_s))


def _caller(view: View) -> str:
    """Who calls through this proxy, where that is known beforehand: its own application, at a sidecar."""
    return str(view.proxy("identity")) if view.proxy("kind") is ProxyKind.SIDECAR else ""


# -- local limits ------------------------------------------------------------------------------------------


def _local(limits: list[RouteLimit], caller: str, *, shadow: bool) -> Any:
    config = local_rate_limit_pb2.LocalRateLimit()
    config.stat_prefix = "retia_shadow" if shadow else "retia"
    config.status.code = limits[0][0].status
    config.filter_enabled.default_value.numerator = 100
    config.filter_enforced.default_value.numerator = 0 if shadow else 100
    config.rate_limited_as_resource_exhausted = True
    config.max_dynamic_descriptors.value = MOST_COUNTERS
    if not shadow and any(limit.headers for limit, _ in limits):
        config.enable_x_ratelimit_headers = _DRAFT_03
    # Envoy's bucket for all requests is the first limit that counts them all; others have descriptors.
    common = next((each for each in limits if _counts_all(each)), None)
    if common is not None:
        _put_bucket(config.token_bucket, common[0])
    else:
        _fill(config.token_bucket, _UNLIMITED, _UNLIMITED, 1.0)
    config.always_consume_default_token_bucket.value = common is not None
    for limit, condition in limits:
        if common is not None and limit is common[0]:
            continue
        _put_actions(config.rate_limits.add(), limit, condition, caller)
        descriptor = config.descriptors.add()
        descriptor.entries.add(key=limit.id, value=_ON)
        for key in limit.by:
            descriptor.entries.add(key=_key_name(key))
        _put_bucket(descriptor.token_bucket, limit)
    return config


def _counts_all(each: RouteLimit) -> bool:
    limit, condition = each
    return condition == ALWAYS and not limit.by and anyone_of(limit.when) == ALWAYS


def _put_bucket(bucket: Any, limit: Limit) -> None:
    _fill(bucket, limit.burst, limit.requests, limit.window_s)


def _fill(bucket: Any, most: int, each: int, interval_s: float) -> None:
    bucket.max_tokens = most
    bucket.tokens_per_fill.value = each
    pb.duration(bucket.fill_interval, interval_s)


# -- global limits -----------------------------------------------------------------------------------------


def _global(view: View, limits: Iterable[RouteLimit], caller: str, *, deny: bool, headers: bool) -> Any:
    config = rate_limit_pb2.RateLimit()
    config.domain = counting.DOMAIN
    config.stat_prefix = "retia"
    pb.duration(config.timeout, TIMEOUT_S)
    config.failure_mode_deny = deny
    config.status_on_error.code = UNAVAILABLE_STATUS
    config.rate_limited_as_resource_exhausted = True
    if headers:
        config.enable_x_ratelimit_headers = _DRAFT_03
    config.rate_limit_service.transport_api_version = pb.V3
    grpc = config.rate_limit_service.grpc_service
    grpc.envoy_grpc.cluster_name = counter_cluster(view)
    pb.duration(grpc.timeout, TIMEOUT_S)
    for limit, condition in limits:
        _put_actions(config.rate_limits.add(), limit, condition, caller)
    return config


def _put_actions(rate_limit: Any, limit: Limit, condition: str, caller: str) -> None:
    """When the limit holds (an action that yields nothing ends it), what it is, and what is counted apart."""
    when = anyone_of(limit.when, caller)
    parts = [f"({part})" for part in (condition, when) if part != ALWAYS]
    if limit.shared:
        entry = rate_limit.actions.add().generic_key
        entry.descriptor_key = counting.KEY
        entry.descriptor_value = str(
            counting.Counted(limit.id, limit.requests, int(limit.window_s), limit.shadow, not limit.headers)
        )
        if parts:
            _put_expression(rate_limit.actions.add(), counting.WHEN, _if(parts))
    elif parts:
        _put_expression(rate_limit.actions.add(), limit.id, _if(parts))
    else:
        entry = rate_limit.actions.add().generic_key
        entry.descriptor_key, entry.descriptor_value = limit.id, _ON
    for key in limit.by:
        action = rate_limit.actions.add()
        if key.kind is KeyKind.ADDRESS:
            action.remote_address.SetInParent()
        else:
            _put_expression(action, _key_name(key), key_value(key, caller))


def _if(parts: list[str]) -> str:
    """``on`` where all parts are true; otherwise an error, and the limit does not hold."""
    return f"{{true: '{_ON}'}}[{' && '.join(parts)}]"


def _key_name(key: Key) -> str:
    """``remote_address`` is Envoy's own name for that."""
    if key.kind is KeyKind.ADDRESS:
        return "remote_address"
    return f"{key.kind}:{key.name}" if key.name else str(key.kind)


def _put_expression(action: Any, name: str, text: str) -> None:
    expression = expr_pb2.Descriptor()
    expression.descriptor_key = name
    expression.text = text
    action.extension.name = _EXPRESSION
    pb.pack(action.extension.typed_config, expression)


# -- connections and bytes ---------------------------------------------------------------------------------


def network_filters(view: View, number: int) -> Iterator[tuple[str, Packed]]:
    """What comes before all else in the chains of one port of the workload."""
    return connection_filters(view.query(port_limits, number).connections)


def put_gateway_limits(chain: Any, view: View) -> None:
    """The same in a chain of a gateway that has its filters already."""
    others = [type(each).FromString(each.SerializeToString()) for each in chain.filters]
    found = tuple(connection_filters(view.query(gateway_limits, "").connections))
    if not found:
        return
    del chain.filters[:]
    for name, config in found:
        network = chain.filters.add()
        network.name = name
        pb.put(network.typed_config, config)
    chain.filters.extend(others)


def connection_filters(limits: Iterable[ConnectionLimit]) -> Iterator[tuple[str, Packed]]:
    """Limits on connections. New ones are counted over all chains; those at one time in each chain."""
    for limit in limits:
        if limit.window_s:
            rate = network_limit_pb2.LocalRateLimit()
            rate.stat_prefix = "retia"
            rate.share_key = limit.id
            _fill(rate.token_bucket, limit.burst, limit.connections, limit.window_s)
            yield CONNECTION_RATE, pb.packed(rate)
        else:
            most = connection_limit_pb2.ConnectionLimit()
            most.stat_prefix = "retia"
            most.max_connections.value = limit.connections
            yield CONNECTIONS, pb.packed(most)


def _bandwidth(bytes_per_s: float) -> Packed:
    config = bandwidth_limit_pb2.BandwidthLimit()
    config.stat_prefix = "retia"
    config.enable_mode = bandwidth_limit_pb2.BandwidthLimit.REQUEST_AND_RESPONSE
    config.limit_kbps.value = max(1, int(bytes_per_s // 1024))
    return pb.packed(config)
