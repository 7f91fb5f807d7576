"""Listeners of a gateway: one for each address and port that any server has there.

A port in plain text has one filter chain; a port with TLS one for each server, chosen by the server name of
the client's greeting. What no chain is for, plain text at a TLS port among it, is closed. Beside them stands
``status``, on the proxy's own loopback address: it says that the proxy works, also where there is no server.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from envoy.config.core.v3 import base_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.rbac.v3 import rbac_pb2
from envoy.extensions.filters.http.grpc_web.v3 import grpc_web_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from envoy.extensions.filters.network.rbac.v3 import rbac_pb2 as network_rbac_pb2
from envoy.extensions.filters.network.sni_cluster.v3 import sni_cluster_pb2
from envoy.extensions.filters.udp.udp_proxy.v3 import route_pb2 as udp_route_pb2
from envoy.extensions.filters.udp.udp_proxy.v3 import udp_proxy_pb2

from retia.config.codes import Code, finding
from retia.model import annotation
from retia.model.finding import Finding
from retia.model.resource import Built, Name, Provenance, TypeUrl
from retia.model.snapshot import View
from retia.policy.edge import edge_servers, edge_tcp
from retia.policy.edge.forms import EdgeProtocol, EdgeServer, EdgeTlsMode, TcpRule
from retia.translate import hcm, pb
from retia.translate.chains import add_listener_filter, add_tcp, new_listener, tls_inspector_parts
from retia.translate.edge.connect import CONNECT
from retia.translate.edge.ports import EdgePort, edge_ports, route_config
from retia.translate.edge.tls import DEMANDING, put_quic, put_server, quic_context, secrets_of, server_context
from retia.translate.gateway import HELLO_TIMEOUT_S, SNI_CLUSTER
from retia.translate.http_filters import HttpFilter, Order, Place, chain_filters, gateway_provenance
from retia.translate.names import BLACK_HOLE, BY_SERVER_NAME, EDGE_STATUS
from retia.translate.rate_limits import gateway_refs, put_gateway_limits
from retia.translate.tcp_routes import add_targets

STATUS_PORT = 15021
"""Istio's port and path for it."""
STATUS_PATH = "/healthz/ready"
ANY = "*"
RBAC = "envoy.filters.network.rbac"
_UDP = 1
"""``SocketAddress.UDP``."""
HEADERS_TIMEOUT_S = 10.0
"""For a request's headers to be complete, against clients that send them byte by byte. Arbitrary."""
MAX_STREAMS = 100
"""Requests at once on one HTTP/2 connection; Envoy's advice for the edge."""
STREAM_WINDOW_BYTES = 64 * 1024
CONNECTION_WINDOW_BYTES = 1024 * 1024
"""As above."""

_GRPC_WEB = HttpFilter(Order.GRPC_WEB, "envoy.filters.http.grpc_web", pb.packed(grpc_web_pb2.GrpcWeb()))
_HTTP = http_connection_manager_pb2.HttpConnectionManager


def edge_listener_names(view: View) -> tuple[str, ...]:
    """The listeners of this gateway."""
    return (EDGE_STATUS, *(port.listener for port in view.query(edge_ports, "") if _is_open(view, port)))


def _is_open(view: View, port: EdgePort) -> bool:
    """Whether anything is done at a port; one that does nothing with connections isn't bound."""
    for server in port.servers:
        if server.protocol.is_http or (server.tls and server.tls.mode is EdgeTlsMode.AUTO_PASSTHROUGH):
            return True
        if view.query(edge_tcp, server.key).rules:
            return True
    return False


def build_edge_listener(view: View, name: str) -> Built:
    """The listener of that name; no message where this proxy doesn't have it."""
    if name == EDGE_STATUS:
        return _status(view)
    port = next((each for each in view.query(edge_ports, "") if each.listener == name), None)
    return Built(name, None) if port is None else _Builder(view, port).build()


def _status(view: View) -> Built:
    """Findings about all servers stand here, since one that is left out may have no listener of its own."""
    listener = new_listener(EDGE_STATUS, view.proxy("outbound_address"), STATUS_PORT, inbound=True)
    manager = hcm.new_manager(EDGE_STATUS)
    host = manager.route_config.virtual_hosts.add()
    host.name = EDGE_STATUS
    host.domains.append(ANY)
    route = host.routes.add()
    route.match.path = STATUS_PATH
    route.direct_response.status = 200
    hcm.put_filters(manager, chain_filters(view, Place.GATEWAY, on_demand=False)[-1:])
    hcm.add_to(listener.filter_chains.add(), manager, view)
    found = view.query(edge_servers, "")
    return Built(EDGE_STATUS, pb.dump(listener), provenance=found.provenance, findings=found.findings)


@dataclass(slots=True)
class _Builder:
    """Builds one listener and keeps what it refers to."""

    view: View
    port: EdgePort
    refs: dict[Name, None] = field(default_factory=dict)
    findings: dict[Finding, None] = field(default_factory=dict)
    provenance: dict[Provenance, None] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    """Server names that have a chain."""

    def build(self) -> Built:
        for server in self.port.servers:
            self.provenance[Provenance(server.ref, server.field)] = None
        if self.port.quic:
            listener: Any | None = self._quic()
        else:
            listener = self._udp() if self.port.udp else self._tcp()
        message = pb.dump(listener) if listener is not None else None
        return Built(
            self.port.listener,
            message,
            refs=tuple(self.refs),
            provenance=tuple(self.provenance),
            findings=tuple(self.findings),
            security=any(_guards(server) for server in self.port.servers),
        )

    # -- TCP -------------------------------------------------------------------------------------------------

    def _tcp(self) -> Any | None:
        """``None``: no chain is left, and an empty listener would be refused."""
        listener = new_listener(self.port.listener, self.port.address, self.port.number)
        # Two gateways that share a port unknowingly would each get some of the connections.
        listener.enable_reuse_port.value = False
        plain = self.port.plain_http
        if plain:
            chain = listener.filter_chains.add()
            self._add_http(chain, plain[0], grpc_web=any(server.grpc_web for server in plain))
        for server in self.port.servers:
            if server.protocol is EdgeProtocol.TCP and not listener.filter_chains:
                self._add_rules(listener, server, self._rules(server)[:1])
            elif server.protocol is EdgeProtocol.HTTPS:
                self._add_https(listener, server)
            elif server.protocol is EdgeProtocol.TLS:
                self._add_tls(listener, server)
        if any(server.tls is not None for server in self.port.servers):
            add_listener_filter(listener, *tls_inspector_parts())
            pb.duration(listener.listener_filters_timeout, HELLO_TIMEOUT_S)
        for chain in listener.filter_chains:
            put_gateway_limits(chain, self.view)
        return listener if listener.filter_chains else None

    def _quic(self) -> Any | None:
        """HTTP/3 for the servers that have it, by their server names."""
        listener = self._udp_shell()
        listener.udp_listener_config.quic_options.SetInParent()
        for server in self.port.servers:
            chain = self._chain(listener, server, server.hosts)
            if chain is not None:
                self._end_tls(chain, server)
                self._add_http(chain, server, grpc_web=server.grpc_web)
        return listener if listener.filter_chains else None

    def _udp_shell(self) -> Any:
        listener = listener_pb2.Listener()
        listener.name = self.port.listener
        listener.traffic_direction = base_pb2.OUTBOUND
        pb.socket_address(listener.address, self.port.address, self.port.number)
        listener.address.socket_address.protocol = _UDP
        listener.udp_listener_config.downstream_socket_config.SetInParent()
        return listener

    def _add_https(self, listener: Any, server: EdgeServer) -> None:
        chain = self._chain(listener, server, server.hosts)
        if chain is not None:
            self._end_tls(chain, server)
            self._add_http(chain, server, grpc_web=server.grpc_web)

    def _add_tls(self, listener: Any, server: EdgeServer) -> None:
        assert server.tls is not None
        if server.tls.mode is EdgeTlsMode.AUTO_PASSTHROUGH:
            chain = self._chain(listener, server, server.hosts)
            if chain is not None:
                guard = chain.filters.add()
                guard.name = RBAC
                pb.put(guard.typed_config, _NAMES_ONLY)
                network = chain.filters.add()
                network.name = SNI_CLUSTER
                pb.pack(network.typed_config, sni_cluster_pb2.SniCluster())
                add_tcp(chain, self.view, _stat(self.port), BLACK_HOLE, on_demand=True)
            return
        opened = server.tls.mode.is_opened
        rules = self._rules(server)
        for rule in rules[:1] if opened else rules:
            chain = self._chain(listener, server, rule.snis or server.hosts, rule)
            if chain is None:
                continue
            if opened:
                self._end_tls(chain, server)
            self._add_targets(chain, rule)

    def _add_rules(self, listener: Any, server: EdgeServer, rules: tuple[TcpRule, ...]) -> None:
        for rule in rules:
            chain = listener.filter_chains.add()
            chain.name = _name(server, rule)
            self._add_targets(chain, rule)

    def _chain(
        self, listener: Any, server: EdgeServer, names: tuple[str, ...], rule: TcpRule | None = None
    ) -> Any | None:
        """A chain for server names; ``None``: older servers have chains for all of them."""
        own = [name for name in dict.fromkeys(names) if name not in self.names]
        for name in dict.fromkeys(names):
            if name in self.names:
                self._note_taken(server, rule, name)
        if not own:
            return None
        self.names.update(own)
        chain = listener.filter_chains.add()
        chain.name = _name(server, rule)
        if not self.port.quic:
            chain.filter_chain_match.transport_protocol = "tls"
        if ANY not in own:
            chain.filter_chain_match.server_names.extend(own)
        return chain

    def _note_taken(self, server: EdgeServer, rule: TcpRule | None, name: str) -> None:
        ref = rule.ref if rule is not None and rule.ref is not None else server.ref
        where = rule.field if rule is not None else server.field
        message = f"is for server name {name} at port {server.port}, which an older rule or server has"
        each = finding(Code.HOST_CONFLICT, f"{message}; it has no effect", ref=ref, field=where)
        self.findings[each] = None

    def _rules(self, server: EdgeServer) -> tuple[TcpRule, ...]:
        found = self.view.query(edge_tcp, server.key)
        self.findings.update(dict.fromkeys(found.findings))
        self.provenance.update(dict.fromkeys(found.provenance))
        return tuple(found.rules)

    def _add_targets(self, chain: Any, rule: TcpRule) -> None:
        clusters = add_targets(self.view, chain, _stat(self.port), rule.targets)
        self.refs.update({Name(TypeUrl.CLUSTER, cluster): None for cluster in sorted(clusters)})

    def _end_tls(self, chain: Any, server: EdgeServer) -> None:
        assert server.tls is not None
        namespace = self.view.proxy("namespace")
        context = server_context(server, server.tls, namespace, self.view.proxy("trust_domain"))
        if self.port.quic:
            put_quic(chain.transport_socket, quic_context(context))
        else:
            put_server(chain.transport_socket, context)
        self.refs.update(dict.fromkeys(secrets_of(server.tls, namespace)))

    # -- HTTP ------------------------------------------------------------------------------------------------

    def _add_http(self, chain: Any, server: EdgeServer, *, grpc_web: bool) -> None:
        routes = route_config(self.port, server)
        chain.name = chain.name or routes
        manager = hcm.new_manager(_stat(self.port), outside=True)
        put_edge_settings(manager, self.view)
        if self.port.quic:
            manager.codec_type = _HTTP.HTTP3
            manager.http3_protocol_options.SetInParent()
        manager.rds.route_config_name = routes
        pb.from_ads(manager.rds.config_source)
        hcm.put_filters(manager, edge_filters(self.view, grpc_web=grpc_web))
        hcm.add_to(chain, manager, self.view)
        self.refs[Name(TypeUrl.ROUTE, routes)] = None
        self.provenance.update(dict.fromkeys(gateway_provenance(self.view)))
        self.refs.update(dict.fromkeys(gateway_refs(self.view)))

    # -- UDP -------------------------------------------------------------------------------------------------

    def _udp(self) -> Any | None:
        server = self.port.servers[0]
        rules = self._rules(server)
        targets = rules[0].targets if rules else ()
        if not targets:
            return None
        listener = self._udp_shell()
        config = udp_proxy_pb2.UdpProxyConfig()
        config.stat_prefix = _stat(self.port)
        best = max(targets, key=lambda each: each.weight)
        cluster = f"outbound|{best.target.port}|{best.target.subset}|{best.target.host}"
        action = config.matcher.on_no_match.action
        action.name = "route"
        pb.pack(action.typed_config, udp_route_pb2.Route(cluster=cluster))
        udp_filter = listener.listener_filters.add()
        udp_filter.name = "envoy.filters.udp_listener.udp_proxy"
        pb.pack(udp_filter.typed_config, config)
        self.refs[Name(TypeUrl.CLUSTER, cluster)] = None
        return listener


def _names_only() -> tuple[str, bytes]:
    """Lets in who names a destination as proxies do.

    Envoy takes any server name for a cluster's name, and a gateway has other clusters as well: by one of them
    (``outbound|9080||reviews…``) a stranger would come into the mesh with the gateway's own certificate.
    """
    config = network_rbac_pb2.RBAC()
    config.stat_prefix = "server_name"
    config.rules.action = rbac_pb2.RBAC.ALLOW
    policy = config.rules.policies["names"]
    policy.permissions.add().requested_server_name.prefix = BY_SERVER_NAME
    policy.principals.add().any = True
    return pb.packed(config)


_NAMES_ONLY = _names_only()


def _guards(server: EdgeServer) -> bool:
    """Whether the server keeps anybody out: then an older version that may not do so must not stay."""
    return server.tls is not None and server.tls.mode in DEMANDING


def edge_filters(view: View, *, grpc_web: bool) -> tuple[HttpFilter, ...]:
    """The HTTP filters of a server."""
    found = chain_filters(view, Place.GATEWAY, on_demand=False)
    return tuple(sorted((*found, _GRPC_WEB), key=lambda each: each.order)) if grpc_web else found


def put_edge_settings(manager: Any, view: View) -> None:
    """What differs from the inside of the mesh: clients are strangers.

    Their address is the connection's, or what trusted proxies before this one say; headers by which they
    could pass for somebody else are taken off; ``x-request-id`` is given.
    """
    manager.use_remote_address.value = True
    manager.xff_num_trusted_hops = _trusted_proxies(view)
    manager.generate_request_id.value = True
    # What may be tunnelled to is said by routes; without one that says so it is refused.
    manager.upgrade_configs.add().upgrade_type = CONNECT
    manager.forward_client_cert_details = _HTTP.SANITIZE_SET
    details = manager.set_current_client_cert_details
    details.subject.value = True
    details.cert = True
    details.dns = True
    details.uri = True
    pb.duration(manager.request_headers_timeout, HEADERS_TIMEOUT_S)
    http2 = manager.http2_protocol_options
    http2.max_concurrent_streams.value = MAX_STREAMS
    http2.initial_stream_window_size.value = STREAM_WINDOW_BYTES
    http2.initial_connection_window_size.value = CONNECTION_WINDOW_BYTES


def _trusted_proxies(view: View) -> int:
    text = dict(view.proxy("annotations")).get(annotation.TRUSTED_PROXIES, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 4 else 0


def _stat(port: EdgePort) -> str:
    return f"edge_{port.listener}"


def _name(server: EdgeServer, rule: TcpRule | None) -> str:
    """A chain's name: unique in its listener, and telling where it comes from."""
    if rule is None or rule.ref is None:
        return f"{server.ref} {server.field}"
    return f"{server.ref} {server.field} {rule.ref} {rule.field}"
