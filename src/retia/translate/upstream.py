"""What a cluster says of its connections: limits, ejection, balancing, the codec that is spoken.

Everything here reads the middle form of a DestinationRule; which endpoints there are, and which TLS, is no
matter of this module.
"""

from __future__ import annotations

from typing import Any

from envoy.config.cluster.v3 import cluster_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2

from retia.model.mesh import MeshSettings, Protocol
from retia.policy.traffic import Algorithm, HttpPool, Outlier, RetryBudget, TcpPool, TrafficPolicy
from retia.translate import pb

HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_DISCOVERY = cluster_pb2.Cluster
_RING_SIZE = 1024
"""Istio's default ``minimumRingSize``."""
Keepalive = tuple[int | None, int | None, int | None]


def put_limits(cluster: Any, tcp: TcpPool, http: HttpPool, budget: RetryBudget | None = None) -> None:
    """Circuit breakers: without a rule they never open, as Istio's (Envoy's own default is 1024).

    ``budget`` takes the place of a limit of retries.
    """
    limits = cluster.circuit_breakers.thresholds.add()
    limits.max_connections.value = tcp.max_connections or pb.NO_LIMIT
    limits.max_pending_requests.value = http.max_pending_requests or pb.NO_LIMIT
    limits.max_requests.value = http.max_requests or pb.NO_LIMIT
    limits.max_retries.value = http.max_retries or pb.NO_LIMIT
    if budget is not None:
        limits.retry_budget.budget_percent.value = budget.percent
        limits.retry_budget.min_retry_concurrency.value = budget.minimum


def retry_budget(policy: TrafficPolicy, settings: MeshSettings) -> RetryBudget | None:
    """The rule's own budget; else none beside a fixed limit; else the mesh's."""
    if policy.retry_budget is not None:
        return policy.retry_budget
    if policy.http.max_retries or not settings.retry_budget_percent:
        return None
    return RetryBudget(settings.retry_budget_percent, settings.retry_budget_minimum)


def put_keepalive(cluster: Any, keepalive: Keepalive | None) -> None:
    """Probes of the kernel; ``None``: its own settings."""
    if keepalive is None:
        return
    alive = cluster.upstream_connection_options.tcp_keepalive
    alive.SetInParent()
    probes, time_s, interval_s = keepalive
    if probes:
        alive.keepalive_probes.value = probes
    if time_s:
        alive.keepalive_time.value = time_s
    if interval_s:
        alive.keepalive_interval.value = interval_s


# -- ejection ----------------------------------------------------------------------------------------------


def put_outlier(cluster: Any, rule: Outlier) -> None:
    """Istio's reading: success rate isn't looked at; a count of 0 switches that detector off."""
    out = cluster.outlier_detection
    out.enforcing_success_rate.value = 0
    if rule.consecutive_5xx is not None:
        _detector(out.consecutive_5xx, out.enforcing_consecutive_5xx, rule.consecutive_5xx)
    if rule.consecutive_gateway_errors is not None:
        _detector(
            out.consecutive_gateway_failure,
            out.enforcing_consecutive_gateway_failure,
            rule.consecutive_gateway_errors,
        )
    if rule.split_local_errors:
        out.split_external_local_origin_errors = True
        out.enforcing_local_origin_success_rate.value = 0
        if rule.consecutive_local_failures is not None:
            _detector(
                out.consecutive_local_origin_failure,
                out.enforcing_consecutive_local_origin_failure,
                rule.consecutive_local_failures,
            )
    if rule.interval_s is not None:
        pb.duration(out.interval, rule.interval_s)
    if rule.base_ejection_s is not None:
        pb.duration(out.base_ejection_time, rule.base_ejection_s)
        # Envoy refuses a longest ejection below the base; its default is 300 s.
        pb.duration(out.max_ejection_time, max(300.0, rule.base_ejection_s))
    if rule.max_ejection_percent is not None:
        out.max_ejection_percent.value = rule.max_ejection_percent
    out.always_eject_one_host.value = True
    cluster.common_lb_config.healthy_panic_threshold.value = float(rule.min_health_percent)


def _detector(count: Any, enforcing: Any, value: int) -> None:
    if value:
        count.value = value
    enforcing.value = 100 if value else 0


# -- balancing ---------------------------------------------------------------------------------------------


def put_balancing(cluster: Any, policy: TrafficPolicy) -> None:
    rule = policy.balancing
    match rule.algorithm:
        case Algorithm.LEAST_REQUEST:
            cluster.lb_policy = _DISCOVERY.LEAST_REQUEST
            if rule.warmup_s:
                _slow_start(cluster.least_request_lb_config.slow_start_config, policy)
        case Algorithm.ROUND_ROBIN:
            cluster.lb_policy = _DISCOVERY.ROUND_ROBIN
            if rule.warmup_s:
                _slow_start(cluster.round_robin_lb_config.slow_start_config, policy)
        case Algorithm.RANDOM:
            cluster.lb_policy = _DISCOVERY.RANDOM
        case Algorithm.RING_HASH:
            cluster.lb_policy = _DISCOVERY.RING_HASH
            cluster.ring_hash_lb_config.minimum_ring_size.value = rule.ring_size or _RING_SIZE
        case Algorithm.MAGLEV:
            cluster.lb_policy = _DISCOVERY.MAGLEV
            if rule.table_size:
                cluster.maglev_lb_config.table_size.value = rule.table_size


def put_locality_weights(cluster: Any) -> None:
    """Let the weights of localities count; otherwise those of endpoints alone do."""
    cluster.common_lb_config.locality_weighted_lb_config.SetInParent()


def _slow_start(config: Any, policy: TrafficPolicy) -> None:
    rule = policy.balancing
    pb.duration(config.slow_start_window, rule.warmup_s)
    config.aggression.default_value = rule.warmup_aggression
    config.aggression.runtime_key = "retia.slow_start.aggression"
    config.min_weight_percent.value = rule.warmup_minimum_percent


# -- HTTP --------------------------------------------------------------------------------------------------


def speaks_h2(protocol: Protocol, http: HttpPool, settings: MeshSettings) -> bool:
    """Whether a destination is spoken to with HTTP/2, whatever its client speaks.

    The mesh's own setting is for ports that are declared to be HTTP; a rule's also for undeclared ones.
    """
    if protocol.is_http2 or http.upgrade_to_http2:
        return True
    return http.upgrade_to_http2 is None and settings.upgrade_to_http2 and protocol.is_http


def put_http_options(
    cluster: Any,
    protocol: Protocol,
    policy: TrafficPolicy,
    settings: MeshSettings,
    *,
    h2: bool,
    auto_sni: bool = False,
) -> None:
    """Which codec is spoken: HTTP/2 to a peer that parses it (``h2``), otherwise the application's own.

    ``auto_sni``: TLS is begun, and the request's host is the server's name.
    """
    http = policy.http
    options = http_protocol_options_pb2.HttpProtocolOptions()
    http2 = _put_codec(options, protocol, http, settings, h2=h2)
    if http2 is not None and http.max_concurrent_streams:
        http2.max_concurrent_streams.value = http.max_concurrent_streams
    if http2 is not None and http.ping is not None:
        pb.duration(http2.connection_keepalive.interval, http.ping[0])
        pb.duration(http2.connection_keepalive.timeout, http.ping[1])
    common = options.common_http_protocol_options
    if http.max_requests_per_connection:
        common.max_requests_per_connection.value = http.max_requests_per_connection
    idle_s = policy.tcp.idle_timeout_s if http.idle_timeout_s is None else http.idle_timeout_s
    if idle_s is not None:
        pb.duration(common.idle_timeout, idle_s)
    if policy.tcp.max_connection_duration_s is not None:
        pb.duration(common.max_connection_duration, policy.tcp.max_connection_duration_s)
    if auto_sni:
        options.upstream_http_protocol_options.auto_sni = True
        options.upstream_http_protocol_options.auto_san_validation = True
    if policy.outlier is not None and policy.outlier.error_codes:
        _put_error_codes(options.outlier_detection.error_matcher, policy.outlier.error_codes)
    pb.pack(cluster.typed_extension_protocol_options[HTTP_OPTIONS], options)


def _put_codec(options: Any, protocol: Protocol, http: HttpPool, settings: MeshSettings, *, h2: bool) -> Any:
    """The HTTP/2 options, if that may be spoken."""
    follows = http.use_client_protocol and not h2
    if not follows and (h2 or speaks_h2(protocol, http, settings)):
        http2 = options.explicit_http_config.http2_protocol_options
        http2.allow_connect = True
        return http2
    if follows or protocol is Protocol.AUTO:
        codec = options.use_downstream_protocol_config
        codec.http_protocol_options.SetInParent()
        codec.http2_protocol_options.SetInParent()
        return codec.http2_protocol_options
    options.explicit_http_config.http_protocol_options.SetInParent()
    return None


def _put_error_codes(matcher: Any, codes: tuple[int, ...]) -> None:
    """The statuses that count against an endpoint, in place of all 5xx."""
    predicates = [matcher] if len(codes) == 1 else [matcher.or_match.rules.add() for _ in codes]
    for predicate, code in zip(predicates, codes, strict=True):
        header = predicate.http_response_headers_match.headers.add()
        header.name = ":status"
        header.string_match.exact = str(code)
