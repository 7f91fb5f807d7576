"""OverloadPolicy as Envoy's filters, and the two classes of requests as routing priorities.

Critical requests get a route of their own at the application's port, with Envoy's high priority, for which
the cluster has circuit breakers of its own; the filters that shed are off on it. Budgets of retries are the
callers' matter and are read with their traffic policy.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from envoy.config.core.v3 import base_pb2
from envoy.config.route.v3 import route_components_pb2
from envoy.extensions.filters.http.adaptive_concurrency.v3 import adaptive_concurrency_pb2
from envoy.extensions.filters.http.admission_control.v3 import admission_control_pb2

from retia.model.snapshot import View
from retia.policy.overload import (
    Adaptive,
    Admission,
    Critical,
    Overload,
    Shedding,
    gateway_overload,
    port_overload,
)
from retia.policy.ratelimit.forms import Test, TestKind
from retia.translate import pb
from retia.translate.filters import HttpFilter, Order, Place

ADAPTIVE = "envoy.filters.http.adaptive_concurrency"
ADMISSION = "envoy.filters.http.admission_control"
SHED_STATUS = 503
_HIGH = base_pb2.RoutingPriority.HIGH
_GRPC_SUCCESS = (0, 1, 3, 5, 6, 7, 9, 10, 11, 12, 16)
"""Statuses that say nothing against the server: all but UNKNOWN, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED,
INTERNAL, UNAVAILABLE, DATA_LOSS."""
_OFF = pb.packed(route_components_pb2.FilterConfig(disabled=True))


def port_filters(view: View, number: int) -> Iterator[HttpFilter]:
    """The filters of one port of the workload."""
    yield from _filters(view.query(port_overload, number))


def sheds(view: View, number: int) -> bool:
    """Whether requests of that port have classes, for which they must be looked at."""
    return view.query(port_overload, number).shedding is not None


def overload_filters(view: View, place: Place) -> Iterator[HttpFilter]:
    """The filters of a gateway."""
    if place is Place.GATEWAY:
        yield from _filters(view.query(gateway_overload, ""))


def _filters(overload: Overload) -> Iterator[HttpFilter]:
    if overload.admission is not None:
        yield HttpFilter(Order.ADMISSION, ADMISSION, pb.packed(_admission(overload.admission)))
    if overload.adaptive is not None:
        yield HttpFilter(Order.CONCURRENCY, ADAPTIVE, pb.packed(_adaptive(overload.adaptive)))


def add_critical_routes(virtual_host: Any, view: View, number: int, like: Any) -> None:
    """Routes as ``like`` for critical requests, to stand before it."""
    overload = view.query(port_overload, number)
    if overload.shedding is None:
        return
    for index, critical in enumerate(overload.shedding.critical):
        route = virtual_host.routes.add()
        route.CopyFrom(like)
        route.name = f"critical-{index}"
        route.route.priority = _HIGH
        _put_match(route.match, critical)
        for name in [each.name for each in _filters(overload)]:
            pb.put(route.typed_per_filter_config[name], _OFF)


def put_ceilings(cluster: Any, view: View, number: int) -> None:
    """The ceilings of both classes, in the cluster of an application's port."""
    shedding: Shedding | None = view.query(port_overload, number).shedding
    if shedding is None:
        return
    for limits in cluster.circuit_breakers.thresholds:
        limits.max_requests.value = shedding.most
        # Over HTTP/1.1 a request has a connection of its own, and waits only where that is still opening.
        limits.max_pending_requests.value = shedding.most
        limits.max_connections.value = pb.NO_LIMIT
    high = cluster.circuit_breakers.thresholds.add()
    high.priority = _HIGH
    high.max_connections.value = pb.NO_LIMIT
    high.max_retries.value = pb.NO_LIMIT
    high.max_requests.value = shedding.critical_most or pb.NO_LIMIT
    high.max_pending_requests.value = shedding.critical_most or pb.NO_LIMIT


def _admission(rule: Admission) -> Any:
    config = admission_control_pb2.AdmissionControl()
    config.enabled.default_value.value = True
    success = config.success_criteria
    ok = success.http_criteria.http_success_status.add()
    ok.start, ok.end = 100, 500
    success.grpc_criteria.grpc_success_status.extend(_GRPC_SUCCESS)
    pb.duration(config.sampling_window, rule.window_s)
    config.sr_threshold.default_value.value = rule.success_percent
    config.rps_threshold.default_value = rule.min_rps
    config.max_rejection_probability.default_value.value = rule.max_refused_percent
    config.aggression.default_value = 1.0
    for part in ("sr_threshold", "rps_threshold", "max_rejection_probability", "aggression", "enabled"):
        getattr(config, part).runtime_key = f"retia.admission_control.{part}"
    return config


def _adaptive(rule: Adaptive) -> Any:
    config = adaptive_concurrency_pb2.AdaptiveConcurrency()
    config.enabled.default_value.value = True
    config.enabled.runtime_key = "retia.adaptive_concurrency.enabled"
    config.concurrency_limit_exceeded_status.code = SHED_STATUS
    gradient = config.gradient_controller_config
    gradient.sample_aggregate_percentile.value = rule.percentile
    limit = gradient.concurrency_limit_params
    limit.max_concurrency_limit.value = rule.most
    pb.duration(limit.concurrency_update_interval, rule.update_s)
    idle = gradient.min_rtt_calc_params
    pb.duration(idle.interval, rule.measure_s)
    idle.min_concurrency.value = rule.least
    idle.buffer.value = rule.buffer_percent
    # So that instances do not all measure at the same moment.
    idle.jitter.value = 20
    return config


def _put_match(match: Any, critical: Critical) -> None:
    path = critical.path
    match.Clear()
    if path is None:
        match.prefix = "/"
    elif path.kind is TestKind.EXACT:
        match.path = path.value
    elif path.kind is TestKind.REGEX:
        match.safe_regex.regex = path.value
    elif path.value.rstrip("/"):
        match.path_separated_prefix = path.value.rstrip("/")
    else:
        match.prefix = "/"
    if critical.method:
        _put_header(match.headers.add(), ":method", Test(TestKind.EXACT, critical.method))
    for name, test in critical.headers:
        _put_header(match.headers.add(), name, test)


def _put_header(matcher: Any, name: str, test: Test) -> None:
    matcher.name = name
    match test.kind:
        case TestKind.PRESENT:
            matcher.present_match = True
        case TestKind.EXACT:
            matcher.string_match.exact = test.value
        case TestKind.REGEX:
            matcher.string_match.safe_regex.regex = test.value
        case _:
            matcher.string_match.prefix = test.value
