"""Clusters: where a proxy sends things, and how it treats the other side.

A cluster's endpoints come by EDS under the name of its *destination*, so that several clusters for one
destination share them. Rules that hold everywhere (each was seen to fail otherwise): the EDS wait is 1 s,
because a warming cluster holds up every other on the stream; no active health checks; DNS clusters don't
warm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from envoy.config.cluster.v3 import cluster_pb2
from envoy.extensions.clusters.dynamic_forward_proxy.v3 import cluster_pb2 as forward_pb2

from retia.config.codes import Code, finding
from retia.model.mesh import MeshSettings, Protocol, ProxyKind, Resolution, Service, ServicePort, Wire
from retia.model.resource import Built, Name, TypeUrl
from retia.model.snapshot import View
from retia.policy.registry import endpoints, mesh, resolve_address, service
from retia.policy.routing.forms import Target
from retia.policy.routing.tcp import tcp_rules
from retia.policy.scope import allow_any, egress_proxy, is_seen
from retia.policy.traffic import (
    Algorithm,
    HttpPool,
    Peers,
    TcpPool,
    TlsMode,
    TrafficPolicy,
    dial_groups,
    endpoint_peers,
    peers,
    pinned_endpoint,
    traffic_policy,
    weighs_localities,
)
from retia.policy.traffic.resolve import missing_credential
from retia.translate import pb, tls
from retia.translate.endpoints import put_address, put_groups
from retia.translate.forward_proxy import put_dns_cache
from retia.translate.inbound import inbound_ports
from retia.translate.names import (
    ALPN_H2,
    ALPN_L4,
    BLACK_HOLE,
    FORWARD_PROXY,
    ByServerName,
    ClusterName,
    Fixed,
    InboundPort,
    Opaque,
    Outbound,
    Pinned,
    TcpDial,
)
from retia.translate.overload import put_ceilings
from retia.translate.sources import service_provenance
from retia.translate.tcp_routes import (
    NO_RULES,
    needs_listener,
    rules_connections,
    sole_target,
    through_listener,
)
from retia.translate.upstream import (
    put_balancing,
    put_http_options,
    put_keepalive,
    put_limits,
    put_locality_weights,
    put_outlier,
    retry_budget,
    speaks_h2,
)

EDS_TIMEOUT_S = 1.0
_DISCOVERY = cluster_pb2.Cluster


def build_cluster(view: View, name: ClusterName) -> Built:
    """The cluster of that name; no message where what it stands for doesn't exist."""
    match name:
        case Outbound():
            return _outbound(view, name)
        case TcpDial():
            return _tcp_dial(view, name)
        case Opaque():
            return _destination(view, str(name), Outbound(name.port, name.subset, name.host), raw=True)
        case Pinned():
            return _pinned(view, name)
        case InboundPort():
            return _inbound(view, name)
        case Fixed():
            return _fixed(view, name)
        case ByServerName():
            return _at_gateway(view, name)


# -- outbound ----------------------------------------------------------------------------------------------


def _outbound(view: View, name: Outbound) -> Built:
    return _destination(view, str(name), name, raw=False)


def _tcp_dial(view: View, name: TcpDial) -> Built:
    """Opaque TCP to whatever address the client dialled."""
    found = resolve_address(view, name.ip, name.port)
    if found is None:
        proxy = egress_proxy(view)
        if proxy is not None:
            return _destination(view, str(name), Outbound(proxy[1], proxy[2], proxy[0]), raw=True)
        if allow_any(view):
            return Built(str(name), pb.dump(_original_destination(view, str(name), http=False)))
        return Built(str(name), None)
    if found.pinned:
        return _pinned_as(view, str(name), Pinned(found.pinned, found.port, found.host), raw=True)
    rules = view.query(tcp_rules, (found.host, found.port, name.ip))
    target = Outbound(found.port, "", found.host)
    only = sole_target(rules) if rules is not None else None
    direct = only or Target(found.host, found.port)
    if (rules is not None and needs_listener(rules)) or rules_connections(view, direct):
        return through_listener(view, name, rules or NO_RULES)
    if rules is None:
        return _destination(view, str(name), target, raw=True)
    if only is not None:
        target = Outbound(only.port, only.subset, only.host)
    built = _destination(view, str(name), target, raw=True)
    return Built(
        built.name,
        built.message,
        refs=built.refs,
        provenance=(*rules.provenance, *built.provenance),
        findings=(*rules.findings, *built.findings),
    )


def _destination(view: View, cluster_name: str, target: Outbound, *, raw: bool) -> Built:
    """A cluster for a service's port or subset. ``raw``: bytes are passed, HTTP isn't parsed."""
    known = service(view, target.host)
    port = known.port(target.port) if known is not None else None
    policy = view.query(traffic_policy, (target.host, target.port, target.subset))
    if known is None or port is None or policy is None or not is_seen(view, known, target.port):
        return Built(cluster_name, None)
    lacking = missing_credential(view, policy)
    if lacking:
        return _without_credential(cluster_name, policy, lacking)
    cluster = _new_cluster(view, cluster_name, str(target), policy)
    refs = tls.secrets_of(policy.tls)
    if known.resolution is Resolution.PASSTHROUGH or policy.balancing.algorithm is Algorithm.PASSTHROUGH:
        cluster.type = _DISCOVERY.ORIGINAL_DST
        cluster.lb_policy = _DISCOVERY.CLUSTER_PROVIDED
        found = Peers(mesh=False, plain=True, http=False)
    elif known.resolution is Resolution.DYNAMIC:
        _put_dynamic(cluster)
        found = Peers(mesh=False, plain=True, http=False)
    elif known.resolution is Resolution.DNS:
        _put_spread(view, cluster, target.host, policy)
        _put_dns(view, cluster, known, target)
        found = Peers(mesh=False, plain=True, http=False)
    else:
        _put_spread(view, cluster, target.host, policy)
        _put_eds(cluster, str(target))
        refs = (*refs, Name(TypeUrl.ENDPOINTS, str(target)))
        found = view.query(peers, (target.host, target.port, target.subset)) or Peers(False, True, False)
    _put_codec(view, cluster, Wanted(target, known, port, policy, raw), found)
    provenance = (*service_provenance(known), *policy.provenance)
    return Built(cluster_name, pb.dump(cluster), refs=refs, provenance=provenance, findings=policy.findings)


def _without_credential(cluster_name: str, policy: TrafficPolicy, why: str) -> Built:
    """No cluster, and so 503: a secret that never comes would hold up every other cluster."""
    last = policy.provenance[-1] if policy.provenance else None
    note = finding(
        Code.UNKNOWN_OBJECT,
        f"{why}; requests get 503",
        ref=last.ref if last is not None else None,
        field=f"{last.field}.credentialName" if last is not None else "",
    )
    return Built(cluster_name, None, provenance=policy.provenance, findings=(*policy.findings, note))


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a cluster stands for."""

    target: Outbound
    service: Service
    port: ServicePort
    policy: TrafficPolicy
    raw: bool
    """Bytes are passed, HTTP isn't parsed."""

    @property
    def parse(self) -> bool:
        return not self.raw and self.port.protocol in _PARSED

    @property
    def server_name(self) -> str:
        """The name by which a server outside is asked for its certificate; empty: there is no one name."""
        sni = self.policy.tls.sni if self.policy.tls is not None else ""
        return sni or ("" if self.target.host.startswith("*") else self.target.host)


def _put_spread(view: View, cluster: Any, host: str, policy: TrafficPolicy) -> None:
    put_balancing(cluster, policy)
    if weighs_localities(view, host, policy):
        put_locality_weights(cluster)


def _put_codec(view: View, cluster: Any, wanted: Wanted, found: Peers) -> None:
    """The transport to what stands behind, and the HTTP that is spoken over it."""
    policy, protocol = wanted.policy, wanted.port.protocol
    h2 = wanted.parse and found.http and protocol.is_http
    _put_transport(view, cluster, wanted, found, h2=h2)
    if wanted.parse:
        begins_tls = policy.tls is not None and policy.tls.mode in _ORIGINATED
        # Envoy refuses a cluster that looks names up by the request without it, TLS or not.
        dynamic = wanted.service.resolution is Resolution.DYNAMIC
        auto_sni = dynamic or (begins_tls and not wanted.server_name)
        put_http_options(cluster, protocol, policy, mesh(view), h2=h2, auto_sni=auto_sni)


_PARSED = (Protocol.HTTP, Protocol.HTTP2, Protocol.GRPC, Protocol.AUTO)


_ORIGINATED = (TlsMode.SIMPLE, TlsMode.MUTUAL)


def _put_transport(view: View, cluster: Any, wanted: Wanted, found: Peers, *, h2: bool) -> None:
    policy = wanted.policy
    if policy.tls is not None and policy.tls.mode in _ORIGINATED:
        alpn: tuple[str, ...] = ()
        if wanted.parse and speaks_h2(wanted.port.protocol, policy.http, mesh(view)):
            alpn = ("h2",)
        elif wanted.parse and wanted.port.protocol is not Protocol.AUTO:
            alpn = ("http/1.1",)
        tls.originate(
            cluster.transport_socket, policy.tls, wanted.server_name, wanted.service.alt_names, alpn
        )
        tls.begin_with_proxy_header(cluster.transport_socket, policy.proxy_header)
        return
    if not found.mesh:
        tls.begin_with_proxy_header(cluster.transport_socket, policy.proxy_header)
        return
    if found.plain:
        match = cluster.transport_socket_matches.add()
        match.name = "plain"
        match.match["wire"] = "plain"
        tls.raw_buffer(match.transport_socket)
        tls.begin_with_proxy_header(match.transport_socket, policy.proxy_header)
    alpn_name = ALPN_H2 if h2 else ALPN_L4
    identities: tuple[str, ...] = found.identities
    if policy.tls is not None and policy.tls.names:
        identities = policy.tls.names
    tls.mesh_client(cluster.transport_socket, _mesh_name(view, wanted), identities, alpn_name)


def _mesh_name(view: View, wanted: Wanted) -> str:
    """The server name in the mesh's own TLS. Sidecars know which of their ports is meant by the usual one;
    gateways, whose servers are told apart by hosts, get the rule's ``sni``."""
    policy = wanted.policy
    sni = policy.tls.sni if policy.tls is not None else ""
    if sni and any(e.wire is Wire.PLAIN for e in endpoints(view, wanted.target.host)):
        return sni
    return wanted.target.server_name


def _pinned(view: View, name: Pinned) -> Built:
    return _pinned_as(view, str(name), name, raw=False)


def _pinned_as(view: View, cluster_name: str, name: Pinned, *, raw: bool) -> Built:
    """A cluster of one endpoint, with the service's rules and that endpoint's identity."""
    known = service(view, name.host)
    port = known.port(name.service_port) if known is not None else None
    endpoint = view.query(pinned_endpoint, (name.host, name.service_port, name.address))
    policy = view.query(traffic_policy, (name.host, name.service_port, ""))
    if known is None or port is None or endpoint is None or policy is None:
        return Built(cluster_name, None)
    cluster = _new_cluster(view, cluster_name, str(Outbound(name.service_port, "", name.host)), policy)
    _put_eds(cluster, str(name))
    peer = endpoint_peers(view, endpoint, name.service_port, name.host, policy.tls)
    target = Outbound(name.service_port, "", name.host)
    _put_codec(view, cluster, Wanted(target, known, port, policy, raw), peer)
    return Built(
        cluster_name,
        pb.dump(cluster),
        refs=(Name(TypeUrl.ENDPOINTS, str(name)),),
        provenance=(*service_provenance(known), *policy.provenance),
        findings=policy.findings,
    )


# -- inbound, gateway, fixed -------------------------------------------------------------------------------


def _inbound(view: View, name: InboundPort) -> Built:
    """The application's own port."""
    port = next((p for p in inbound_ports(view) if p.number == name.port), None)
    address = view.proxy("app_address")
    if port is None or not address:
        return Built(str(name), None)
    cluster = cluster_pb2.Cluster()
    cluster.name = str(name)
    cluster.type = _DISCOVERY.STATIC
    timeout = port.policy.tcp.connect_timeout_s
    pb.duration(cluster.connect_timeout, timeout if timeout is not None else mesh(view).connect_timeout_s)
    cluster.load_assignment.cluster_name = str(name)
    endpoint = cluster.load_assignment.endpoints.add().lb_endpoints.add().endpoint
    put_address(endpoint.address, port.app_address or address, port.app_port)
    put_limits(cluster, port.policy.tcp, port.policy.http)
    put_keepalive(cluster, port.policy.tcp.keepalive)
    put_ceilings(cluster, view, name.port)
    if port.http:
        put_http_options(cluster, port.protocol, port.policy, MeshSettings(), h2=False)
    return Built(str(name), pb.dump(cluster))


def _at_gateway(view: View, name: ByServerName) -> Built:
    """The instances of a destination, where TLS is passed through unopened: at the gateway of their host,
    which has its own, or at a gateway of objects, which sees what its namespace sees."""
    known = service(view, name.host)
    policy = view.query(traffic_policy, (name.host, name.port, name.subset))
    if known is None or known.port(name.port) is None:
        return Built(str(name), None)
    if view.proxy("kind") is ProxyKind.GATEWAY and not is_seen(view, known, name.port):
        return Built(str(name), None)
    cluster = cluster_pb2.Cluster()
    cluster.name = str(name)
    cluster.alt_stat_name = str(Outbound(name.port, name.subset, name.host))
    pb.duration(cluster.connect_timeout, mesh(view).connect_timeout_s)
    _put_eds(cluster, str(name))
    cluster.lb_policy = _DISCOVERY.LEAST_REQUEST
    put_limits(cluster, TcpPool(), HttpPool())
    provenance = policy.provenance if policy is not None else ()
    refs = (Name(TypeUrl.ENDPOINTS, str(name)),)
    return Built(str(name), pb.dump(cluster), refs=refs, provenance=provenance)


def _fixed(view: View, name: Fixed) -> Built:
    if name.name == BLACK_HOLE:
        cluster = cluster_pb2.Cluster()
        cluster.name = BLACK_HOLE
        cluster.type = _DISCOVERY.STATIC
        pb.duration(cluster.connect_timeout, mesh(view).connect_timeout_s)
        return Built(name.name, pb.dump(cluster))
    if name.name == FORWARD_PROXY:
        return Built(name.name, pb.dump(_forward_proxy(view)))
    return Built(name.name, pb.dump(_original_destination(view, name.name, http=True)))


def _original_destination(view: View, name: str, *, http: bool) -> Any:
    cluster = cluster_pb2.Cluster()
    cluster.name = name
    if not http:
        cluster.alt_stat_name = "PassthroughCluster"
    cluster.type = _DISCOVERY.ORIGINAL_DST
    cluster.lb_policy = _DISCOVERY.CLUSTER_PROVIDED
    pb.duration(cluster.connect_timeout, mesh(view).connect_timeout_s)
    put_limits(cluster, TcpPool(), HttpPool())
    if http:
        put_http_options(cluster, Protocol.AUTO, TrafficPolicy(), MeshSettings(), h2=False)
    return cluster


def _forward_proxy(view: View) -> Any:
    cluster = cluster_pb2.Cluster()
    cluster.name = FORWARD_PROXY
    pb.duration(cluster.connect_timeout, mesh(view).connect_timeout_s)
    _put_dynamic(cluster)
    put_limits(cluster, TcpPool(), HttpPool())
    return cluster


# -- parts -------------------------------------------------------------------------------------------------


def _new_cluster(view: View, name: str, stat_name: str, policy: TrafficPolicy) -> Any:
    cluster = cluster_pb2.Cluster()
    cluster.name = name
    if stat_name != name:
        cluster.alt_stat_name = stat_name
    settings = mesh(view)
    timeout = policy.tcp.connect_timeout_s
    pb.duration(cluster.connect_timeout, timeout if timeout is not None else settings.connect_timeout_s)
    put_limits(cluster, policy.tcp, policy.http, retry_budget(policy, settings))
    put_keepalive(cluster, policy.tcp.keepalive or settings.keepalive)
    if policy.outlier is not None:
        put_outlier(cluster, policy.outlier)
    return cluster


def _put_dynamic(cluster: Any) -> None:
    """Whatever host the request names is looked up."""
    cluster.lb_policy = _DISCOVERY.CLUSTER_PROVIDED
    config = forward_pb2.ClusterConfig()
    put_dns_cache(config.dns_cache_config)
    cluster.cluster_type.name = "envoy.clusters.dynamic_forward_proxy"
    pb.pack(cluster.cluster_type.typed_config, config)


def _put_eds(cluster: Any, service_name: str) -> None:
    cluster.type = _DISCOVERY.EDS
    eds = cluster.eds_cluster_config
    eds.service_name = service_name
    pb.from_ads(eds.eds_config)
    pb.duration(eds.eds_config.initial_fetch_timeout, EDS_TIMEOUT_S)


def _put_dns(view: View, cluster: Any, known: Service, target: Outbound) -> None:
    """Names are looked up by Envoy. It never waits for them: that would hold up every other cluster."""
    cluster.type = _DISCOVERY.LOGICAL_DNS if known.single_address else _DISCOVERY.STRICT_DNS
    cluster.wait_for_warm_on_init.value = False
    cluster.dns_lookup_family = _DISCOVERY.V4_PREFERRED
    cluster.respect_dns_ttl = True
    pb.duration(cluster.dns_refresh_rate, mesh(view).dns_refresh_s)
    assignment = cluster.load_assignment
    assignment.cluster_name = cluster.name
    found = dial_groups(view, target.host, target.port, target.subset) or ()
    put_groups(assignment, found)
    if not endpoints(view, known.host) and not known.host.startswith("*"):
        port = known.port(target.port)
        at = port.app_port if port is not None else target.port
        endpoint = assignment.endpoints.add().lb_endpoints.add().endpoint
        pb.socket_address(endpoint.address, known.host, at)
