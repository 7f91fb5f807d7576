"""The middle form of DestinationRule: what holds for one (host, port, subset), defaults filled in later.

``None`` means that nobody said anything; the translator then applies the mesh's default.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from retia.model.finding import Finding
from retia.model.ids import SpiffeId
from retia.model.mesh import Labels, LocalityRules
from retia.model.resource import Provenance


class Algorithm(StrEnum):
    LEAST_REQUEST = "least-request"
    ROUND_ROBIN = "round-robin"
    RANDOM = "random"
    RING_HASH = "ring-hash"
    MAGLEV = "maglev"
    PASSTHROUGH = "passthrough"


class HashKind(StrEnum):
    HEADER = "header"
    COOKIE = "cookie"
    SOURCE_IP = "source-ip"
    QUERY = "query"


@dataclass(frozen=True, slots=True)
class HashOn:
    """What of a request is hashed; ``ttl_s`` is a cookie's life (``None``: never set by the proxy)."""

    kind: HashKind
    name: str = ""
    path: str = ""
    ttl_s: float | None = None
    attributes: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Balancing:
    algorithm: Algorithm = Algorithm.LEAST_REQUEST
    hash_on: HashOn | None = None
    ring_size: int = 0
    """Smallest number of ring entries; 0: Istio's default of 1024."""
    table_size: int = 0
    warmup_s: float = 0.0
    """How long a new endpoint's share grows; 0: it gets its full share at once."""
    warmup_minimum_percent: float = 10.0
    warmup_aggression: float = 1.0
    locality: LocalityRules | None = None
    """``None``: the mesh's."""


@dataclass(frozen=True, slots=True)
class TcpPool:
    max_connections: int | None = None
    connect_timeout_s: float | None = None
    idle_timeout_s: float | None = None
    """0: none."""
    max_connection_duration_s: float | None = None
    keepalive: tuple[int | None, int | None, int | None] | None = None
    """Probes, time in seconds, interval in seconds; ``None``: the kernel's defaults."""


@dataclass(frozen=True, slots=True)
class HttpPool:
    max_pending_requests: int | None = None
    max_requests: int | None = None
    max_requests_per_connection: int | None = None
    max_retries: int | None = None
    idle_timeout_s: float | None = None
    max_concurrent_streams: int | None = None
    upgrade_to_http2: bool | None = None
    """``None``: as the mesh says."""
    use_client_protocol: bool = False
    ping: tuple[float, float] | None = None
    """HTTP/2 pings: interval and timeout in seconds."""


@dataclass(frozen=True, slots=True)
class Outlier:
    consecutive_5xx: int | None = None
    """0: never ejects on them; ``None``: 5, Envoy's default."""
    consecutive_gateway_errors: int | None = None
    consecutive_local_failures: int | None = None
    split_local_errors: bool = False
    interval_s: float | None = None
    base_ejection_s: float | None = None
    max_ejection_percent: int | None = None
    min_health_percent: int = 0
    error_codes: tuple[int, ...] = ()
    """The statuses that count as errors; none: 500 to 599."""


class TlsMode(StrEnum):
    DISABLE = "disable"
    SIMPLE = "simple"
    MUTUAL = "mutual"
    MESH = "mesh"
    """Istio's ``ISTIO_MUTUAL``: the mesh's own identities, whatever the endpoint says."""


@dataclass(frozen=True, slots=True)
class Tls:
    mode: TlsMode
    sni: str = ""
    ca_file: str = ""
    certificate_file: str = ""
    key_file: str = ""
    names: tuple[str, ...] = ()
    skip_verify: bool = False
    crl_file: str = ""
    ca_pem: bytes = b""
    """The authorities themselves, in PEM, in place of a file."""
    credential: str = ""
    """The name of a Secret that holds key, certificate and authority, in place of files."""
    selected: bool = False
    """The rule chooses its clients by label: sidecars may use its Secret as well as gateways."""


class ProxyHeader(StrEnum):
    """The version of the PROXY header that a connection begins with."""

    V1 = "v1"
    V2 = "v2"


@dataclass(frozen=True, slots=True)
class RetryBudget:
    """``percent`` of the requests under way; at least ``minimum`` retries at once are allowed."""

    percent: float = 20.0
    minimum: int = 3


@dataclass(frozen=True, slots=True)
class Tunnel:
    """Connections go to the destination inside an HTTP ``CONNECT`` (or ``POST``) for another host."""

    host: str
    port: int
    post: bool = False


@dataclass(frozen=True, slots=True)
class TrafficPolicy:
    """How a client treats a destination. ``labels`` select its endpoints (a subset's labels)."""

    labels: Labels = ()
    balancing: Balancing = Balancing()
    tcp: TcpPool = TcpPool()
    http: HttpPool = HttpPool()
    outlier: Outlier | None = None
    tls: Tls | None = None
    proxy_header: ProxyHeader | None = None
    tunnel: Tunnel | None = None
    retry_budget: RetryBudget | None = None
    """``None``: the mesh's, where no ``maxRetries`` is given."""
    provenance: tuple[Provenance, ...] = ()
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class Peers:
    """What a client finds at the endpoints of a destination."""

    mesh: bool
    """Some are spoken to with the mesh's mutual TLS."""
    plain: bool
    """Some have no mesh on the other side, or refuse its TLS."""
    http: bool
    """All that speak the mesh's TLS parse HTTP."""
    identities: tuple[SpiffeId, ...] = ()
