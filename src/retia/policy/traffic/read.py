"""One level of a DestinationRule's ``trafficPolicy``, read from its schema into the middle form.

A level is made of groups (load balancing, connection pool, outlier detection, TLS). Precedence works on whole
groups, so that is what :class:`Groups` holds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from retia.config.codes import Code, finding
from retia.model.finding import Finding
from retia.model.mesh import Labels, LocalityRules
from retia.model.objects import ObjectRef
from retia.model.resource import Provenance
from retia.policy.traffic.forms import (
    Algorithm,
    Balancing,
    HashKind,
    HashOn,
    HttpPool,
    Outlier,
    ProxyHeader,
    RetryBudget,
    TcpPool,
    Tls,
    TlsMode,
    TrafficPolicy,
    Tunnel,
)

SYSTEM_CA_FILE = "/etc/ssl/certs/ca-certificates.crt"
"""Debian's bundle: what verifies an external server where the rule names no file."""

_ALGORITHMS = {
    "UNSPECIFIED": Algorithm.LEAST_REQUEST,
    "LEAST_CONN": Algorithm.LEAST_REQUEST,
    "LEAST_REQUEST": Algorithm.LEAST_REQUEST,
    "ROUND_ROBIN": Algorithm.ROUND_ROBIN,
    "RANDOM": Algorithm.RANDOM,
    "PASSTHROUGH": Algorithm.PASSTHROUGH,
}
_UPGRADES = {"UPGRADE": True, "DO_NOT_UPGRADE": False}
_TLS_MODES = {
    "DISABLE": TlsMode.DISABLE,
    "SIMPLE": TlsMode.SIMPLE,
    "MUTUAL": TlsMode.MUTUAL,
    "ISTIO_MUTUAL": TlsMode.MESH,
}


_UNSUPPORTED = (
    ("load_balancer.zone_aware_lb_setting", "use localityLbSetting"),
    ("retry_budget.budget_interval", "retries are compared with the requests of the moment"),
)
"""Fields that have an effect in Istio and none here, with what happens instead."""
GROUPS = (
    "load_balancer",
    "connection_pool",
    "outlier_detection",
    "tls",
    "tunnel",
    "proxy_protocol",
    "retry_budget",
)


@dataclass(frozen=True, slots=True)
class Groups:
    """The groups that somebody set, and who did."""

    balancing: Balancing | None = None
    pool: tuple[TcpPool, HttpPool] | None = None
    outlier: Outlier | None = None
    tls: Tls | None = None
    tunnel: Tunnel | None = None
    proxy_header: ProxyHeader | None = None
    retry_budget: RetryBudget | None = None
    provenance: tuple[Provenance, ...] = ()
    findings: tuple[Finding, ...] = ()

    def over(self, upper: Groups) -> Groups:
        """``upper`` laid over this level: each group that it sets replaces this level's."""
        return Groups(
            upper.balancing or self.balancing,
            upper.pool or self.pool,
            upper.outlier or self.outlier,
            upper.tls or self.tls,
            upper.tunnel or self.tunnel,
            upper.proxy_header or self.proxy_header,
            upper.retry_budget or self.retry_budget,
            self.provenance + upper.provenance,
            self.findings + upper.findings,
        )

    def replaced_by(self, port: Groups) -> Groups:
        """A port's settings in place of all groups that a port can have."""
        return replace(
            self,
            balancing=port.balancing,
            pool=port.pool,
            outlier=port.outlier,
            tls=port.tls,
            provenance=self.provenance + port.provenance,
            findings=self.findings + port.findings,
        )

    def noting(self, provenance: Provenance) -> Groups:
        return replace(self, provenance=(*self.provenance, provenance))

    def finish(self, labels: Labels) -> TrafficPolicy:
        """The policy, with the defaults of the groups that nobody set."""
        tcp, http = self.pool or (TcpPool(), HttpPool())
        return TrafficPolicy(
            labels,
            self.balancing or Balancing(),
            tcp,
            http,
            self.outlier,
            self.tls,
            self.proxy_header,
            self.tunnel,
            self.retry_budget,
            tuple(dict.fromkeys(self.provenance)),
            tuple(dict.fromkeys(self.findings)),
        )


def read_groups(policy: Any, ref: ObjectRef, where: str, *, selected: bool = False) -> Groups:
    """The groups of one ``trafficPolicy`` or of one of its ``portLevelSettings``.

    ``selected``: the rule has a ``workloadSelector``.
    """
    provenance = []
    findings: list[Finding] = []
    for group in GROUPS:
        if getattr(policy, group, None) is not None:
            provenance.append(Provenance(ref, f"{where}.{_camel(group)}"))
    for group, what in _UNSUPPORTED:
        if _at(policy, group):
            path = ".".join(_camel(part) for part in group.split("."))
            findings.append(
                finding(
                    Code.UNSUPPORTED_FIELD, f"is not applied yet: {what}", ref=ref, field=f"{where}.{path}"
                )
            )
    lb = policy.load_balancer
    return Groups(
        _balancing(lb) if lb is not None else None,
        read_pool(policy.connection_pool),
        _outlier(policy.outlier_detection) if policy.outlier_detection is not None else None,
        _tls(policy.tls, selected) if policy.tls is not None else None,
        _tunnel(getattr(policy, "tunnel", None)),
        _proxy_header(getattr(policy, "proxy_protocol", None)),
        _retry_budget(getattr(policy, "retry_budget", None)),
        tuple(provenance),
        tuple(findings),
    )


def read_pool(pool: Any) -> tuple[TcpPool, HttpPool] | None:
    """The limits of a ``connectionPool``; ``None``: there is none."""
    return None if pool is None else (_tcp(pool.tcp), _http(pool.http))


def locality_rules(setting: Any) -> LocalityRules | None:
    """The rules of a ``localityLbSetting``, of a DestinationRule or of the mesh; ``None``: there is none."""
    if setting is None:
        return None
    return LocalityRules(
        setting.enabled is not False,
        tuple((item.from_, item.to) for item in setting.distribute),
        tuple((item.from_, item.to) for item in setting.failover),
        setting.failover_priority,
    )


def _balancing(lb: Any) -> Balancing:
    return replace(_algorithm(lb), locality=locality_rules(lb.locality_lb_setting))


def _algorithm(lb: Any) -> Balancing:
    warmup_s, minimum, aggression = _warmup(lb)
    consistent = lb.consistent_hash
    if consistent is None:
        algorithm = _ALGORITHMS[str(lb.simple or "UNSPECIFIED")]
        return Balancing(
            algorithm, warmup_s=warmup_s, warmup_minimum_percent=minimum, warmup_aggression=aggression
        )
    if consistent.maglev is not None:
        return Balancing(
            Algorithm.MAGLEV, _hash_on(consistent), table_size=int(consistent.maglev.table_size or 0)
        )
    ring = consistent.ring_hash.minimum_ring_size if consistent.ring_hash is not None else None
    return Balancing(
        Algorithm.RING_HASH,
        _hash_on(consistent),
        ring_size=int(ring or consistent.minimum_ring_size or 0),
    )


def _hash_on(consistent: Any) -> HashOn | None:
    if consistent.http_header_name:
        return HashOn(HashKind.HEADER, consistent.http_header_name)
    if consistent.http_cookie is not None:
        cookie = consistent.http_cookie
        return HashOn(
            HashKind.COOKIE,
            cookie.name,
            cookie.path,
            _seconds(cookie.ttl),
            tuple((attribute.name, attribute.value) for attribute in cookie.attributes),
        )
    if consistent.use_source_ip:
        return HashOn(HashKind.SOURCE_IP)
    if consistent.http_query_parameter_name:
        return HashOn(HashKind.QUERY, consistent.http_query_parameter_name)
    return None


def _warmup(lb: Any) -> tuple[float, float, float]:
    if lb.warmup is not None:
        percent, aggression = lb.warmup.minimum_percent, lb.warmup.aggression
        return (
            float(lb.warmup.duration),
            10.0 if percent is None else float(percent),
            1.0 if aggression is None else float(aggression),
        )
    return float(lb.warmup_duration_secs or 0.0), 10.0, 1.0


def _tcp(tcp: Any) -> TcpPool:
    if tcp is None:
        return TcpPool()
    alive = tcp.tcp_keepalive
    keepalive = None
    if alive is not None:
        keepalive = (alive.probes, _whole(alive.time), _whole(alive.interval))
    return TcpPool(
        max_connections=tcp.max_connections or None,
        connect_timeout_s=_seconds(tcp.connect_timeout),
        idle_timeout_s=_seconds(tcp.idle_timeout),
        max_connection_duration_s=_seconds(tcp.max_connection_duration),
        keepalive=keepalive,
    )


def _http(http: Any) -> HttpPool:
    if http is None:
        return HttpPool()
    alive = http.http2_keep_alive
    return HttpPool(
        max_pending_requests=http.http1_max_pending_requests or None,
        max_requests=http.http2_max_requests or None,
        max_requests_per_connection=http.max_requests_per_connection or None,
        max_retries=http.max_retries or None,
        idle_timeout_s=_seconds(http.idle_timeout),
        max_concurrent_streams=http.max_concurrent_streams or None,
        upgrade_to_http2=_UPGRADES.get(str(http.h2_upgrade_policy or "")),
        use_client_protocol=bool(http.use_client_protocol),
        ping=None if alive is None else (float(alive.interval), float(alive.timeout)),
    )


def _outlier(detection: Any) -> Outlier:
    return Outlier(
        consecutive_5xx=detection.consecutive_5xx_errors
        if detection.consecutive_5xx_errors is not None
        else detection.consecutive_errors or None,
        consecutive_gateway_errors=detection.consecutive_gateway_errors,
        consecutive_local_failures=detection.consecutive_local_origin_failures,
        split_local_errors=bool(detection.split_external_local_origin_errors),
        interval_s=_seconds(detection.interval),
        base_ejection_s=_seconds(detection.base_ejection_time),
        max_ejection_percent=detection.max_ejection_percent or None,
        min_health_percent=detection.min_health_percent or 0,
        error_codes=tuple(sorted(set(detection.outlier_detection_http_error_codes))),
    )


def _tls(tls: Any, selected: bool) -> Tls:
    mode = _TLS_MODES[str(tls.mode or "DISABLE")]
    return Tls(
        mode,
        sni=tls.sni or "",
        ca_file=tls.ca_certificates or "",
        certificate_file=tls.client_certificate or "",
        key_file=tls.private_key or "",
        names=tuple(tls.subject_alt_names),
        skip_verify=bool(tls.insecure_skip_verify),
        crl_file=tls.ca_crl or "",
        credential=tls.credential_name or "",
        selected=selected,
    )


def _tunnel(tunnel: Any) -> Tunnel | None:
    if tunnel is None:
        return None
    return Tunnel(tunnel.target_host, tunnel.target_port, post=tunnel.protocol == "POST")


def _proxy_header(header: Any) -> ProxyHeader | None:
    if header is None:
        return None
    return ProxyHeader.V2 if str(header.version) == "V2" else ProxyHeader.V1


def _retry_budget(budget: Any) -> RetryBudget | None:
    if budget is None:
        return None
    default = RetryBudget()
    return RetryBudget(
        default.percent if budget.percent is None else float(budget.percent),
        default.minimum if budget.min_retry_concurrency is None else budget.min_retry_concurrency,
    )


def _at(value: Any, path: str) -> Any:
    """The field at a dotted path; ``None`` where any part is absent."""
    for part in path.split("."):
        value = getattr(value, part, None)
        if value is None:
            return None
    return value


def _seconds(value: Any) -> float | None:
    return None if value is None else float(value)


def _whole(value: Any) -> int | None:
    return None if value is None else round(float(value))


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.title() for part in rest)
