"""What the mesh consists of: services, endpoints, workloads, proxies.

All types are frozen, slotted and hashable, so that a fact can be a part of a cache's key and can be shared
between threads and streams without a copy. Label sets are sorted tuples of pairs (see :data:`Labels`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from retia.model.ids import DNS_SUFFIX, Host, HostId, Namespace, ProxyId, SpiffeId, WorkloadId

Labels = tuple[tuple[str, str], ...]
"""Labels or annotations: pairs sorted by key, each key once."""

INBOUND_PORT = 15006
"""Where every sidecar takes mutual TLS, on its workload's published address; Istio's number."""


def labels_of(pairs: Mapping[str, str] | Iterable[tuple[str, str]]) -> Labels:
    """``pairs`` as :data:`Labels`."""
    return tuple(sorted(dict(pairs).items()))


def labels_match(selector: Labels, labels: Labels) -> bool:
    """Whether every pair of ``selector`` is in ``labels``; an empty selector matches everything."""
    return set(selector) <= set(labels)


class Protocol(StrEnum):
    """What a service's port speaks; ``AUTO`` where nobody declared it, found out from the first bytes."""

    HTTP = "http"
    HTTP2 = "http2"
    GRPC = "grpc"
    TCP = "tcp"
    TLS = "tls"
    AUTO = "auto"

    @property
    def is_http(self) -> bool:
        """Declared to be HTTP of some kind (``AUTO`` is not)."""
        return self in (Protocol.HTTP, Protocol.HTTP2, Protocol.GRPC)

    @property
    def is_http2(self) -> bool:
        """Spoken with HTTP/2 framing."""
        return self in (Protocol.HTTP2, Protocol.GRPC)


class Resolution(StrEnum):
    """How a service's endpoints are found (ServiceEntry's ``resolution``)."""

    STATIC = "static"
    """From the registry or from the object itself."""
    DNS = "dns"
    """By looking up the host's name."""
    PASSTHROUGH = "passthrough"
    """The address that the client dialled (``NONE`` in Istio)."""
    DYNAMIC = "dynamic"
    """By looking up the name that each request gives, below a wildcard host (``DYNAMIC_DNS``)."""


class Wire(StrEnum):
    """How an endpoint is spoken to."""

    MTLS = "mtls"
    """Through the peer's Envoy, mutual TLS."""
    PLAIN = "plain"
    """No mesh on the other side."""


class Mode(StrEnum):
    """The mutual TLS mode of an inbound port (PeerAuthentication)."""

    STRICT = "strict"
    PERMISSIVE = "permissive"
    DISABLE = "disable"


class CaptureMode(StrEnum):
    """How a workload's traffic reaches its proxy."""

    EBPF = "ebpf"
    EXPLICIT = "explicit"


class ProxyKind(StrEnum):
    SIDECAR = "sidecar"
    HOST_GATEWAY = "host-gateway"
    """Takes mTLS for all workloads of a host on one port, and passes it on by SNI without opening it."""
    GATEWAY = "gateway"
    """An ingress or egress gateway: an Envoy without an application, which listens as ``Gateway`` objects
    say and calls services with an identity of its own."""


@dataclass(frozen=True, slots=True)
class ServicePort:
    """One port of a service. ``number`` and ``target_port`` are 1..65535."""

    number: int
    protocol: Protocol
    name: str = ""
    target_port: int = 0
    """The port that the application listens on; 0: the same as ``number``."""
    target_name: str = ""
    """The name of that port, where it was given by name."""

    @property
    def app_port(self) -> int:
        return self.target_port or self.number


@dataclass(frozen=True, slots=True)
class Service:
    """A name with ports. ``fact key: ("service", host)``."""

    host: Host
    namespace: Namespace
    name: str
    ports: tuple[ServicePort, ...]
    vip: str = ""
    """The virtual address that names resolve to; empty: none (a wildcard host)."""
    resolution: Resolution = Resolution.STATIC
    external: bool = False
    """Outside the mesh (ServiceEntry ``MESH_EXTERNAL``): spoken to without mTLS."""
    origin: str = ""
    """Reference of the object that made it, ``Kind/namespace/name``; empty: made by ``retia run``."""
    export_to: tuple[str, ...] = ()
    """Namespaces whose clients see it; empty: all."""
    networks: tuple[str, ...] = ()
    """Further addresses and networks (``10.1.0.0/16``) that mean it."""
    alt_names: tuple[str, ...] = ()
    """Names of which its certificates must have one, where TLS is begun for it."""
    single_address: bool = False
    """Of several addresses that a name resolves to, one at a time is used (``DNS_ROUND_ROBIN``)."""
    nearest: tuple[str, ...] = ()
    """The labels by which near endpoints are preferred whether or not bad ones are ejected (a Service's
    ``trafficDistribution``); empty: no preference of its own."""
    sticky: bool = False
    """A client's address chooses the endpoint (``sessionAffinity: ClientIP``)."""
    alias: str = ""
    """Another host that this is a name of (``externalName``); a service of the mesh, if there is one of that
    name."""

    def port(self, number: int) -> ServicePort | None:
        return next((p for p in self.ports if p.number == number), None)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One instance behind one port of a service.

    Callers on the same host dial ``address:port``. Callers on other hosts dial
    ``gateway_address:gateway_port`` where that is set (the instance's host gateway), otherwise the same.
    """

    service_port: int
    address: str
    port: int
    """Where to dial: for ``wire == MTLS`` the inbound port of its Envoy (15006)."""
    wire: Wire
    app_port: int = 0
    """The port by which a client that balances for itself knows it (``address:app_port``)."""
    workload: WorkloadId | None = None
    host: HostId | None = None
    identity: SpiffeId | None = None
    labels: Labels = ()
    locality: str = ""
    weight: int = 1
    gateway_address: str = ""
    gateway_port: int = 0
    http_inbound: bool = False
    """The peer parses HTTP on this port; otherwise it passes bytes after TLS and identity."""


@dataclass(frozen=True, slots=True)
class EndpointSet:
    """All endpoints of a service, sorted. ``fact key: ("endpoints", host)``."""

    host: Host
    endpoints: tuple[Endpoint, ...] = ()


@dataclass(frozen=True, slots=True)
class WorkloadPort:
    """A port that a workload's application listens on."""

    number: int
    """The port its callers use."""
    app_port: int
    protocol: Protocol
    listening: bool = True
    """Whether the application has been seen listening; until then the endpoint is not published."""


@dataclass(frozen=True, slots=True)
class Workload:
    """One instance of a program. ``fact key: ("workload", id)``."""

    id: WorkloadId
    namespace: Namespace
    service_account: str
    host: HostId
    service: str = ""
    """The short name of the service it belongs to; empty: a client only."""
    ports: tuple[WorkloadPort, ...] = ()
    labels: Labels = ()
    annotations: Labels = ()
    published_address: str = ""
    """Where its Envoy listens for its callers on the same host (127.64.0.0/16)."""
    app_address: str = ""
    """Where the application really listens (127.65.0.0/16 under eBPF, 127.0.0.1 under explicit capture)."""
    gateway_address: str = ""
    gateway_port: int = 0
    capture: CaptureMode = CaptureMode.EBPF
    healthy: bool = True
    locality: str = ""
    weight: int = 1
    """Its share among the instances of a service; 1 or more. Given by its WorkloadGroup."""

    @property
    def version(self) -> str:
        return dict(self.labels).get("version", "")


@dataclass(frozen=True, slots=True)
class Upstream:
    """A local port that stands for a service, for programs under explicit capture."""

    local_port: int
    host: Host
    port: int


@dataclass(frozen=True, slots=True)
class Proxy:
    """One Envoy and what translation may know of it; its fields are what ``view.proxy`` reads.

    Addresses of its own listeners are chosen by the agent.
    """

    id: ProxyId
    kind: ProxyKind
    namespace: Namespace
    service_account: str
    host: HostId
    workload: WorkloadId | None = None
    labels: Labels = ()
    annotations: Labels = ()
    capture: CaptureMode = CaptureMode.EBPF
    outbound_address: str = "127.0.0.1"
    outbound_http_port: int = 0
    """0: no such listener."""
    outbound_auto_port: int = 0
    """For ports whose protocol nobody declared: the first bytes decide."""
    outbound_tcp_port: int = 0
    explicit_port: int = 0
    """The HTTP proxy port for programs under explicit capture; 0: none."""
    upstreams: tuple[Upstream, ...] = ()
    inbound_address: str = ""
    """The published address; empty: no inbound listener."""
    inbound_port: int = INBOUND_PORT
    app_address: str = ""
    ports: tuple[WorkloadPort, ...] = ()
    trust_domain: str = "cluster.local"
    gateway_address: str = ""
    gateway_port: int = 0
    locality: str = ""
    """Where it stands: ``region/zone/subzone`` or a start of it."""
    edge_address: str = ""
    """``GATEWAY`` only: the address that its servers listen on."""
    edge_ports: tuple[tuple[int, int], ...] = ()
    """``GATEWAY`` only: ports of ``Gateway`` objects and where they are bound instead, sorted. A port that is
    not named here is bound as it is."""

    @property
    def identity(self) -> SpiffeId:
        return SpiffeId(f"spiffe://{self.trust_domain}/ns/{self.namespace}/sa/{self.service_account}")


@dataclass(frozen=True, slots=True)
class LocalityRules:
    """How far away an endpoint may be: Istio's ``localityLbSetting``."""

    enabled: bool = True
    """False: all localities are alike."""
    distribute: tuple[tuple[str, tuple[tuple[str, int], ...]], ...] = ()
    """From a locality: the shares of others, in percent. They rule out all that follows."""
    failover: tuple[tuple[str, str], ...] = ()
    """From a region: the region to prefer when the own has nothing healthy."""
    priority: tuple[str, ...] = ()
    """Labels, or ``label=value``: the more of them agree, from the first on, the nearer an endpoint is."""


@dataclass(frozen=True, slots=True)
class DefaultRetry:
    """The retry policy of requests that no rule says anything about, beyond the number of attempts."""

    on: str = ""
    """Envoy's conditions with commas; empty: Istio's default ones."""
    per_try_timeout_s: float | None = None
    backoff_s: float | None = None
    other_hosts: bool | None = None
    remote_localities: bool = False


@dataclass(frozen=True, slots=True)
class AccessLog:
    """Where proxies log requests and connections."""

    path: str = ""
    """A file, or ``/dev/stdout``; empty: nowhere."""
    format: str = ""
    """Envoy's format string, or a JSON object of such strings; empty: Istio's default."""
    json: bool = False


@dataclass(frozen=True, slots=True)
class MeshSettings:
    """Mesh-wide settings. ``fact key: ("mesh",)``."""

    trust_domain: str = "cluster.local"
    dns_suffix: str = DNS_SUFFIX
    """What follows ``<service>.<namespace>.`` in a full name."""
    connect_timeout_s: float = 10.0
    """For clusters with no ``connectionPool.tcp.connectTimeout``; Istio's default."""
    default_retries: int = 2
    """Attempts beyond the first where no rule sets any; Istio's default. 0: none."""
    protocol_detection_timeout_s: float = 0.2
    """How long the first bytes of an undeclared port are waited for; 0: not at all."""
    outbound_allow_any: bool = True
    """Unknown destinations are passed on rather than refused (``outboundTrafficPolicy: ALLOW_ANY``)."""
    retry: DefaultRetry = DefaultRetry()
    retry_budget_percent: float = 20.0
    """Retries under way to one destination, as a share of its requests under way, where no rule sets a limit
    of its own. 0: no limit."""
    retry_budget_minimum: int = 50
    """So many retries at once are allowed whatever the share is: in a small mesh a restart isn't noticed, and
    in a big one a storm is stopped. Arbitrary."""
    locality: LocalityRules = LocalityRules()
    upgrade_to_http2: bool = False
    """HTTP/1 destinations are spoken to with HTTP/2 (``h2UpgradePolicy``)."""
    keepalive: tuple[int | None, int | None, int | None] | None = None
    """TCP keep-alive: probes, time in seconds, interval in seconds; ``None``: the kernel's."""
    access_log: AccessLog = AccessLog()
    service_export: tuple[str, ...] = ()
    """The ``exportTo`` of services that have none; empty: all namespaces."""
    virtual_service_export: tuple[str, ...] = ()
    destination_rule_export: tuple[str, ...] = ()
    verify_certificates: bool = True
    """TLS to servers outside verifies their certificates by the system's authorities where the rule names
    none (``verifyCertificateAtClient``)."""
    dns_refresh_s: float = 60.0
    """How often looked-up names are looked up again where their answer doesn't say."""
