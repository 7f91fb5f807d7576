"""How a destination is spoken to: connections, ejection of bad endpoints, TLS."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum

from retia.config import names
from retia.config.codes import Code
from retia.config.schema.base import Model, Problem
from retia.config.schema.load_balancer import LoadBalancerSettings
from retia.config.schema.types import (
    Count,
    Flag,
    Percentage,
    Port,
    PortSelector,
    PositiveDuration,
    Text,
    UInt32,
    WholePercent,
    ZeroOrDuration,
)


class TcpKeepalive(Model):
    """Keep-alive probes of the kernel; absent fields: the kernel's settings."""

    probes: UInt32 | None = None
    time: PositiveDuration | None = None
    interval: PositiveDuration | None = None


class TCPSettings(Model):
    max_connections: Count | None = None
    """Absent: no limit (2**32-1)."""
    connect_timeout: PositiveDuration | None = None
    """Absent: the mesh's (10s)."""
    tcp_keepalive: TcpKeepalive | None = None
    max_connection_duration: PositiveDuration | None = None
    """Absent: no limit."""
    idle_timeout: ZeroOrDuration | None = None
    """Absent: 1h; 0s: none."""


class H2UpgradePolicy(StrEnum):
    DEFAULT = "DEFAULT"
    DO_NOT_UPGRADE = "DO_NOT_UPGRADE"
    UPGRADE = "UPGRADE"


class ConnectionKeepalive(Model):
    """HTTP/2 PINGs."""

    interval: PositiveDuration
    timeout: PositiveDuration


class HTTPSettings(Model):
    http1_max_pending_requests: Count | None = None
    """Requests that wait for a connection. Absent: no limit (2**32-1)."""
    http2_max_requests: Count | None = None
    """Requests at once to the whole destination, HTTP/1 too. Absent: no limit (2**32-1)."""
    max_requests_per_connection: Count | None = None
    """1: no keep-alive. Absent or 0: no limit."""
    max_retries: Count | None = None
    """Retries at once. Absent: no limit (2**32-1)."""
    idle_timeout: PositiveDuration | None = None
    """Absent: 1h."""
    h2_upgrade_policy: H2UpgradePolicy = H2UpgradePolicy.DEFAULT
    use_client_protocol: Flag = False
    max_concurrent_streams: Count | None = None
    http2_keep_alive: ConnectionKeepalive | None = None

    def problems(self) -> Iterator[Problem]:
        if self.h2_upgrade_policy is H2UpgradePolicy.UPGRADE and self.use_client_protocol:
            yield Problem(("useClientProtocol",), "must not be true where h2UpgradePolicy is UPGRADE")


class ConnectionPoolSettings(Model):
    tcp: TCPSettings | None = None
    http: HTTPSettings | None = None

    def problems(self) -> Iterator[Problem]:
        if self.tcp is None and self.http is None:
            yield Problem((), "must have tcp or http", Code.MISSING_FIELD)


class OutlierDetection(Model):
    """When an endpoint is taken out for a while."""

    consecutive_errors: Count = 0
    split_external_local_origin_errors: Flag = False
    consecutive_local_origin_failures: UInt32 | None = None
    consecutive_gateway_errors: UInt32 | None = None
    """Answers 502, 503, 504 (and connections that fail). 0: off."""
    consecutive_5xx_errors: UInt32 | None = None
    """Answers 5xx (and connections that fail). Absent: 5; 0: off."""
    interval: PositiveDuration | None = None
    """Between sweeps. Absent: 10s."""
    base_ejection_time: PositiveDuration | None = None
    """Times the number of ejections so far. Absent: 30s."""
    max_ejection_percent: WholePercent | None = None
    """Absent or 0: 10. One endpoint may be out whatever the share is."""
    min_health_percent: WholePercent | None = None
    """Below it detection is off. Absent: 0."""
    outlier_detection_http_error_codes: tuple[UInt32, ...] = ()

    def problems(self) -> Iterator[Problem]:
        if self.consecutive_local_origin_failures and not self.split_external_local_origin_errors:
            message = "needs splitExternalLocalOriginErrors: true"
            yield Problem(("consecutiveLocalOriginFailures",), message)
        for index, status in enumerate(self.outlier_detection_http_error_codes):
            if not 100 <= status <= 599:
                path = ("outlierDetectionHttpErrorCodes", index)
                yield Problem(path, f"is {status}; it must be 100 to 599", Code.BAD_VALUE)


class TLSMode(StrEnum):
    DISABLE = "DISABLE"
    SIMPLE = "SIMPLE"
    MUTUAL = "MUTUAL"
    ISTIO_MUTUAL = "ISTIO_MUTUAL"


class ClientTLSSettings(Model):
    """TLS that the caller's proxy begins. File names are of the caller's host."""

    mode: TLSMode = TLSMode.DISABLE
    client_certificate: Text = ""
    private_key: Text = ""
    ca_certificates: Text = ""
    credential_name: Text = ""
    subject_alt_names: tuple[Text, ...] = ()
    sni: Text = ""
    insecure_skip_verify: Flag | None = None
    ca_crl: Text = ""

    def problems(self) -> Iterator[Problem]:
        yield from self._unverified_problems()
        if self.mode not in (TLSMode.SIMPLE, TLSMode.MUTUAL):
            return
        if self.credential_name:
            for field in ("clientCertificate", "privateKey", "caCertificates", "caCrl"):
                if getattr(self, _SNAKE[field]):
                    yield Problem((field,), "must not stand beside credentialName")
        elif self.mode is TLSMode.MUTUAL:
            for field in ("clientCertificate", "privateKey"):
                if not getattr(self, _SNAKE[field]):
                    yield Problem((field,), "is missing; mode MUTUAL needs it", Code.MISSING_FIELD)

    def _unverified_problems(self) -> Iterator[Problem]:
        if not self.insecure_skip_verify:
            return
        checked = {"caCertificates": self.ca_certificates, "subjectAltNames": self.subject_alt_names}
        if self.mode is TLSMode.SIMPLE:
            checked["credentialName"] = self.credential_name
        if self.mode in (TLSMode.SIMPLE, TLSMode.MUTUAL):
            for field, value in checked.items():
                if value:
                    yield Problem((field,), "must not stand beside insecureSkipVerify: true")


_SNAKE = {
    "clientCertificate": "client_certificate",
    "privateKey": "private_key",
    "caCertificates": "ca_certificates",
    "caCrl": "ca_crl",
}


class PortTrafficPolicy(Model):
    """For one port; what it has takes the place of the whole of the destination's, as in Istio."""

    port: PortSelector
    load_balancer: LoadBalancerSettings | None = None
    connection_pool: ConnectionPoolSettings | None = None
    outlier_detection: OutlierDetection | None = None
    tls: ClientTLSSettings | None = None

    def problems(self) -> Iterator[Problem]:
        if not (self.load_balancer or self.connection_pool or self.outlier_detection or self.tls):
            yield Problem((), "must have at least one setting", Code.MISSING_FIELD)


class TunnelSettings(Model):
    """TCP inside HTTP CONNECT or POST."""

    protocol: Text = ""
    target_host: Text
    target_port: Port

    def problems(self) -> Iterator[Problem]:
        if self.protocol not in ("", "CONNECT", "POST"):
            yield Problem(("protocol",), f"is {self.protocol}; it must be CONNECT or POST", Code.BAD_VALUE)
        broken = None if names.is_ip(self.target_host) else names.host_rule(self.target_host, wildcard=False)
        if broken:
            yield Problem(("targetHost",), f"is {self.target_host!r}; it {broken}", Code.BAD_VALUE)


class ProxyProtocolVersion(StrEnum):
    V1 = "V1"
    V2 = "V2"


class ProxyProtocol(Model):
    """The PROXY header."""

    version: ProxyProtocolVersion = ProxyProtocolVersion.V1


class RetryBudget(Model):
    """Retries as a share of the requests under way."""

    percent: Percentage | None = None
    """Absent: 20."""
    min_retry_concurrency: UInt32 | None = None
    """Absent: 3."""
    budget_interval: ZeroOrDuration | None = None


class TrafficPolicy(Model):
    load_balancer: LoadBalancerSettings | None = None
    connection_pool: ConnectionPoolSettings | None = None
    outlier_detection: OutlierDetection | None = None
    tls: ClientTLSSettings | None = None
    port_level_settings: tuple[PortTrafficPolicy, ...] = ()
    tunnel: TunnelSettings | None = None
    proxy_protocol: ProxyProtocol | None = None
    retry_budget: RetryBudget | None = None

    def problems(self) -> Iterator[Problem]:
        if not any(getattr(self, field) for field in type(self).model_fields):
            yield Problem((), "must have at least one setting", Code.MISSING_FIELD)
        if self.tunnel and self.proxy_protocol:
            yield Problem(("proxyProtocol",), "must not stand beside tunnel")
        seen: set[int] = set()
        for index, each in enumerate(self.port_level_settings):
            if each.port.number in seen:
                path = ("portLevelSettings", index, "port", "number")
                yield Problem(path, f"is {each.port.number}, which is there already")
            seen.add(each.port.number)
