"""Clusters: where a proxy sends things, and how it treats the other side.

A cluster's endpoints come by EDS under the name of its *destination*, so that several clusters for one
destination share them. Rules that hold everywhere (each was seen to fail otherwise): the EDS wait is 1 s,
because a warming cluster holds up every other on the stream; no active health checks; DNS clusters don't
warm.
"""

from __future__ import annotations

from typing import Any

from envoy.config.cluster.v3 import cluster_pb2
from envoy.extensions.clusters.dynamic_forward_proxy.v3 import cluster_pb2 as forward_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2

from retia.model.mesh import Protocol, Resolution, Service, ServicePort
from retia.model.resource import Built, Name, TypeUrl
from retia.model.snapshot import View
from retia.policy.registry import Destination, endpoints, mesh, resolve_address, service
from retia.policy.routing.tcp import tcp_rules
from retia.policy.traffic import (
    Algorithm,
    HttpPool,
    Outlier,
    Peers,
    TcpPool,
    TlsMode,
    TrafficPolicy,
    endpoint_peers,
    peers,
    pinned_endpoint,
    traffic_policy,
)
from retia.translate import pb, tls
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
from retia.translate.sources import service_provenance
from retia.translate.tcp_routes import needs_listener, sole_target, through_listener

EDS_TIMEOUT_S = 1.0
DNS_REFRESH_S = 60.0
HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_DISCOVERY = cluster_pb2.Cluster
_RING_SIZE = 1024
"""Istio's default ``minimumRingSize``."""


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
        if mesh(view).outbound_allow_any:
            return Built(str(name), pb.dump(_original_destination(view, str(name), http=False)))
        return Built(str(name), None)
    if found.pinned:
        return _pinned_as(view, str(name), Pinned(found.pinned, found.port, found.host), found, raw=True)
    rules = view.query(tcp_rules, (found.host, found.port, name.ip))
    target = Outbound(found.port, "", found.host)
    if rules is None:
        return _destination(view, str(name), target, raw=True)
    if needs_listener(rules):
        return through_listener(view, name, rules)
    only = sole_target(rules)
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
    if known is None or port is None or policy is None:
        return Built(cluster_name, None)
    cluster = _new_cluster(view, cluster_name, str(target), policy)
    refs: tuple[Name, ...] = ()
    if known.resolution is Resolution.PASSTHROUGH or policy.balancing.algorithm is Algorithm.PASSTHROUGH:
        cluster.type = _DISCOVERY.ORIGINAL_DST
        cluster.lb_policy = _DISCOVERY.CLUSTER_PROVIDED
        found = Peers(mesh=False, plain=True, http=False)
    elif known.resolution is Resolution.DNS:
        _put_balancing(cluster, policy)
        _put_dns(view, cluster, known, port, policy)
        found = Peers(mesh=False, plain=True, http=False)
    else:
        _put_balancing(cluster, policy)
        _put_eds(cluster, str(target))
        refs = (Name(TypeUrl.ENDPOINTS, str(target)),)
        found = view.query(peers, (target.host, target.port, target.subset)) or Peers(False, True, False)
    parse = not raw and port.protocol in _PARSED
    h2 = parse and found.http and port.protocol.is_http
    _put_transport(cluster, target, found, policy, port, h2=h2, parse=parse)
    if parse:
        _put_http_options(cluster, port.protocol, policy.http, h2=h2)
    provenance = (*service_provenance(known), *policy.provenance)
    return Built(cluster_name, pb.dump(cluster), refs=refs, provenance=provenance, findings=policy.findings)


_PARSED = (Protocol.HTTP, Protocol.HTTP2, Protocol.GRPC, Protocol.AUTO)


def _put_transport(
    cluster: Any,
    target: Outbound,
    found: Peers,
    policy: TrafficPolicy,
    port: ServicePort,
    *,
    h2: bool,
    parse: bool,
) -> None:
    if policy.tls is not None and policy.tls.mode in (TlsMode.SIMPLE, TlsMode.MUTUAL):
        alpn: tuple[str, ...] = ()
        if parse and port.protocol is not Protocol.AUTO:
            alpn = ("h2",) if _speaks_h2(port.protocol, policy.http) else ("http/1.1",)
        tls.originate(cluster.transport_socket, policy.tls, target.host, alpn)
        return
    if not found.mesh:
        return
    if found.plain:
        match = cluster.transport_socket_matches.add()
        match.name = "plain"
        match.match["wire"] = "plain"
        tls.raw_buffer(match.transport_socket)
    alpn_name = ALPN_H2 if h2 else ALPN_L4
    tls.mesh_client(cluster.transport_socket, target.server_name, found.identities, alpn_name)


def _pinned(view: View, name: Pinned) -> Built:
    found = Destination(name.host, name.service_port, pinned=name.address)  # type: ignore[arg-type]
    return _pinned_as(view, str(name), name, found, raw=False)


def _pinned_as(view: View, cluster_name: str, name: Pinned, found: Destination, *, raw: bool) -> Built:
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
    parse = not raw and port.protocol in _PARSED
    h2 = parse and peer.mesh and peer.http and port.protocol.is_http
    target = Outbound(name.service_port, "", name.host)
    _put_transport(cluster, target, peer, policy, port, h2=h2, parse=parse)
    if parse:
        _put_http_options(cluster, port.protocol, policy.http, h2=h2)
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
    pb.duration(cluster.connect_timeout, mesh(view).connect_timeout_s)
    cluster.load_assignment.cluster_name = str(name)
    endpoint = cluster.load_assignment.endpoints.add().lb_endpoints.add().endpoint
    pb.socket_address(endpoint.address, address, port.app_port)
    _put_limits(cluster, TcpPool(), HttpPool())
    if port.http:
        _put_http_options(cluster, port.protocol, HttpPool(), h2=False)
    return Built(str(name), pb.dump(cluster))


def _at_gateway(view: View, name: ByServerName) -> Built:
    """The local instances of a destination, at the gateway of their host; TLS is passed through unopened."""
    known = service(view, name.host)
    policy = view.query(traffic_policy, (name.host, name.port, name.subset))
    if known is None or known.port(name.port) is None:
        return Built(str(name), None)
    cluster = cluster_pb2.Cluster()
    cluster.name = str(name)
    cluster.alt_stat_name = str(Outbound(name.port, name.subset, name.host))
    pb.duration(cluster.connect_timeout, mesh(view).connect_timeout_s)
    _put_eds(cluster, str(name))
    cluster.lb_policy = _DISCOVERY.LEAST_REQUEST
    _put_limits(cluster, TcpPool(), HttpPool())
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
    _put_limits(cluster, TcpPool(), HttpPool())
    if http:
        _put_http_options(cluster, Protocol.AUTO, HttpPool(), h2=False)
    return cluster


def _forward_proxy(view: View) -> Any:
    cluster = cluster_pb2.Cluster()
    cluster.name = FORWARD_PROXY
    cluster.lb_policy = _DISCOVERY.CLUSTER_PROVIDED
    pb.duration(cluster.connect_timeout, mesh(view).connect_timeout_s)
    config = forward_pb2.ClusterConfig()
    put_dns_cache(config.dns_cache_config)
    cluster.cluster_type.name = "envoy.clusters.dynamic_forward_proxy"
    pb.pack(cluster.cluster_type.typed_config, config)
    _put_limits(cluster, TcpPool(), HttpPool())
    return cluster


# -- parts -------------------------------------------------------------------------------------------------


def _new_cluster(view: View, name: str, stat_name: str, policy: TrafficPolicy) -> Any:
    cluster = cluster_pb2.Cluster()
    cluster.name = name
    if stat_name != name:
        cluster.alt_stat_name = stat_name
    timeout = policy.tcp.connect_timeout_s
    pb.duration(cluster.connect_timeout, timeout if timeout is not None else mesh(view).connect_timeout_s)
    _put_limits(cluster, policy.tcp, policy.http)
    if policy.tcp.keepalive is not None:
        _put_keepalive(cluster, policy.tcp.keepalive)
    if policy.outlier is not None:
        _put_outlier(cluster, policy.outlier)
    return cluster


def _put_eds(cluster: Any, service_name: str) -> None:
    cluster.type = _DISCOVERY.EDS
    eds = cluster.eds_cluster_config
    eds.service_name = service_name
    pb.from_ads(eds.eds_config)
    pb.duration(eds.eds_config.initial_fetch_timeout, EDS_TIMEOUT_S)


def _put_dns(view: View, cluster: Any, known: Service, port: ServicePort, policy: TrafficPolicy) -> None:
    """Names are looked up by Envoy. It never waits for them: that would hold up every other cluster."""
    cluster.type = _DISCOVERY.STRICT_DNS
    cluster.wait_for_warm_on_init.value = False
    cluster.dns_lookup_family = _DISCOVERY.V4_PREFERRED
    cluster.respect_dns_ttl = True
    pb.duration(cluster.dns_refresh_rate, DNS_REFRESH_S)
    cluster.load_assignment.cluster_name = cluster.name
    group = cluster.load_assignment.endpoints.add()
    wanted = set(policy.labels)
    found = [
        e for e in endpoints(view, known.host) if e.service_port == port.number and wanted <= set(e.labels)
    ]
    for endpoint in found:
        target = group.lb_endpoints.add()
        pb.socket_address(target.endpoint.address, endpoint.address, endpoint.port)
        if endpoint.weight != 1:
            target.load_balancing_weight.value = endpoint.weight
    if not found and not endpoints(view, known.host) and not known.host.startswith("*"):
        pb.socket_address(group.lb_endpoints.add().endpoint.address, known.host, port.app_port)


def _put_limits(cluster: Any, tcp: TcpPool, http: HttpPool) -> None:
    """Circuit breakers: without a rule they never open, as Istio's (Envoy's own default is 1024)."""
    limits = cluster.circuit_breakers.thresholds.add()
    limits.max_connections.value = tcp.max_connections or pb.NO_LIMIT
    limits.max_pending_requests.value = http.max_pending_requests or pb.NO_LIMIT
    limits.max_requests.value = http.max_requests or pb.NO_LIMIT
    limits.max_retries.value = http.max_retries or pb.NO_LIMIT


def _put_keepalive(cluster: Any, keepalive: tuple[int | None, int | None, int | None]) -> None:
    alive = cluster.upstream_connection_options.tcp_keepalive
    alive.SetInParent()
    probes, time_s, interval_s = keepalive
    if probes:
        alive.keepalive_probes.value = probes
    if time_s:
        alive.keepalive_time.value = time_s
    if interval_s:
        alive.keepalive_interval.value = interval_s


def _put_outlier(cluster: Any, rule: Outlier) -> None:
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


def _put_balancing(cluster: Any, policy: TrafficPolicy) -> None:
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


def _slow_start(config: Any, policy: TrafficPolicy) -> None:
    rule = policy.balancing
    pb.duration(config.slow_start_window, rule.warmup_s)
    config.aggression.default_value = rule.warmup_aggression
    config.aggression.runtime_key = "retia.slow_start.aggression"
    config.min_weight_percent.value = rule.warmup_minimum_percent


def _speaks_h2(protocol: Protocol, http: HttpPool) -> bool:
    return protocol.is_http2 or http.upgrade_to_http2


def _put_http_options(cluster: Any, protocol: Protocol, http: HttpPool, *, h2: bool) -> None:
    """Which codec is spoken: HTTP/2 to a peer that parses it, otherwise the application's own."""
    options = http_protocol_options_pb2.HttpProtocolOptions()
    if http.use_client_protocol and not h2:
        codec = options.use_downstream_protocol_config
        codec.http_protocol_options.SetInParent()
        http2 = codec.http2_protocol_options
        http2.SetInParent()
    elif h2 or _speaks_h2(protocol, http):
        http2 = options.explicit_http_config.http2_protocol_options
        http2.allow_connect = True
    elif protocol is Protocol.AUTO:
        codec = options.use_downstream_protocol_config
        codec.http_protocol_options.SetInParent()
        http2 = codec.http2_protocol_options
        http2.SetInParent()
    else:
        options.explicit_http_config.http_protocol_options.SetInParent()
        http2 = None
    if http2 is not None and http.max_concurrent_streams:
        http2.max_concurrent_streams.value = http.max_concurrent_streams
    if http2 is not None and http.ping is not None:
        pb.duration(http2.connection_keepalive.interval, http.ping[0])
        pb.duration(http2.connection_keepalive.timeout, http.ping[1])
    if http.max_requests_per_connection:
        options.common_http_protocol_options.max_requests_per_connection.value = (
            http.max_requests_per_connection
        )
    if http.idle_timeout_s is not None:
        pb.duration(options.common_http_protocol_options.idle_timeout, http.idle_timeout_s)
    pb.pack(cluster.typed_extension_protocol_options[HTTP_OPTIONS], options)
