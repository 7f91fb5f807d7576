"""The inbound listener: who may reach the application, and how.

It listens on the workload's published address: on 15006 for the mesh's mutual TLS, and on the ports of the
application for callers without a mesh. Which chain takes a connection is decided by what the client says (the
server name carries the service's port, ALPN the depth), never by the port at which it came in, for a host
gateway passes all on to 15006; only plaintext and foreign TLS go by port.

=============  ================================  =================================================
mode           callers of the mesh               plaintext and foreign TLS, at the service's port
=============  ================================  =================================================
STRICT         mutual TLS                        refused
PERMISSIVE     mutual TLS                        passed on
DISABLE        plaintext (other hosts: TLS)      passed on
refuse         refused                           refused: a security object can't be translated
=============  ================================  =================================================

Depth: bytes are passed after TLS and the check of identity, unless the workload is annotated
``retia.dev/inbound: http`` or a policy looks into the port's requests; then HTTP is parsed in every chain of
the port, so that no depth by-passes the other.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from envoy.config.route.v3 import route_components_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from envoy.extensions.matching.common_inputs.network.v3 import network_inputs_pb2
from google.protobuf import wrappers_pb2

from retia.model import annotation
from retia.model.mesh import Protocol
from retia.model.resource import Built, Name, TypeUrl
from retia.model.snapshot import View
from retia.policy.authn import Inbound, PortMode, port_mode
from retia.policy.registry import mesh, service
from retia.policy.scope import Ingress, Scope, scope
from retia.policy.traffic import TrafficPolicy, traffic_policy
from retia.policy.traffic.read import read_pool
from retia.translate import hcm, pb, tls
from retia.translate.chains import add_inspectors, add_tcp, new_listener
from retia.translate.http_filters import Place, chain_filters, needs_http, port_provenance
from retia.translate.names import ALPN_H2, ALPN_L4, INBOUND, InboundPort
from retia.translate.overload import add_critical_routes
from retia.translate.rate_limits import network_filters, port_refs

HELLO_TIMEOUT_FACTOR = 5
"""How much longer than for detection a caller may take to say hello. A busy peer's late hello must not be
taken for plaintext; the price is paid only by plaintext callers that wait for the server to speak first."""

_NO_LIMITS = TrafficPolicy()
_HTTP = http_connection_manager_pb2.HttpConnectionManager
_BY_SERVER_NAME = pb.packed(network_inputs_pb2.ServerNameInput())
_BY_ALPN = pb.packed(network_inputs_pb2.ApplicationProtocolInput())
_BY_PORT = pb.packed(network_inputs_pb2.DestinationPortInput())
_BY_TRANSPORT = pb.packed(network_inputs_pb2.TransportProtocolInput())


@dataclass(frozen=True, slots=True)
class PortPlan:
    """One port of the workload: who calls it by which names, and what is done with them."""

    number: int
    app_port: int
    protocol: Protocol
    http: bool
    """HTTP is parsed here."""
    called_as: tuple[tuple[int, str], ...]
    """Pairs of service port and host (empty: any host) by which callers of the mesh name it."""
    mode: PortMode
    app_address: str = ""
    """A unix socket in place of the application's address, as ``unix://`` and a path."""
    policy: TrafficPolicy = _NO_LIMITS
    """The limits of connections to the application; nothing else of it holds here."""


def inbound_ports(view: View) -> tuple[PortPlan, ...]:
    """The ports of this proxy's workload, sorted by number."""
    declared = dict(view.proxy("annotations")).get(annotation.INBOUND) == "http"
    namespace, labels = view.proxy("namespace"), view.proxy("labels")
    address = view.proxy("inbound_address")
    plans = []
    seen = scope(view)
    rules = {each.port: each for each in seen.ingress} if seen is not None else {}
    for port in sorted(view.proxy("ports"), key=lambda p: p.number):
        owners = view.index("address", f"{address}:{port.number}@{view.proxy('host')}")
        rule = rules.get(port.number)
        protocol = _declared(view, (rule and rule.protocol) or port.protocol, owners)
        plans.append(
            PortPlan(
                number=port.number,
                app_port=(rule and rule.app_port) or port.app_port,
                protocol=protocol,
                http=(declared or needs_http(view, port.number)) and protocol.is_http,
                called_as=((port.number, ""), *((n, h) for h, n in owners if n != port.number)),
                mode=view.query(port_mode, (namespace, labels, port.number)),
                app_address=rule.address if rule is not None else "",
                policy=_limits(view, seen, rule, owners),
            )
        )
    return tuple(plans)


def _limits(
    view: View, seen: Scope | None, rule: Ingress | None, owners: Iterable[tuple[str, int]]
) -> TrafficPolicy:
    """The connection pool of a port: its own in the Sidecar, the Sidecar's for all ports, else that of the
    DestinationRule for its service, as in Istio."""
    pool = read_pool((rule and rule.pool) or (seen and seen.pool))
    for host, number in owners if pool is None else ():
        policy = view.query(traffic_policy, (host, number, ""))
        if policy is not None:
            pool = policy.tcp, policy.http
            break
    if pool is None:
        return TrafficPolicy()
    # The application is spoken to as its clients speak, whatever they were told to speak to it.
    return TrafficPolicy(tcp=pool[0], http=replace(pool[1], upgrade_to_http2=None, use_client_protocol=False))


def build_inbound(view: View) -> Built:
    """The listener with the chains of all ports."""
    plans = inbound_ports(view)
    listener = new_listener(INBOUND, view.proxy("inbound_address"), view.proxy("inbound_port"), inbound=True)
    for plan in plans:
        extra = listener.additional_addresses.add()
        pb.socket_address(extra.address, view.proxy("inbound_address"), plan.number)
    add_inspectors(listener, mesh(view).protocol_detection_timeout_s * HELLO_TIMEOUT_FACTOR, http=False)
    trust_domain = view.proxy("trust_domain")
    open_plans = [plan for plan in plans if plan.mode.mode is not Inbound.REFUSE]
    for plan in open_plans:
        _add_chains(listener, view, plan, trust_domain)
    if open_plans:
        _put_matcher(listener.filter_chain_matcher, open_plans)
    else:
        # A listener needs a chain; nothing leads to this one.
        _add_refusing(listener, view)
    security = tuple(dict.fromkeys(p for plan in plans for p in plan.mode.provenance))
    policies = (p for plan in open_plans for p in port_provenance(view, plan.number))
    provenance = tuple(dict.fromkeys((*security, *policies)))
    refs = tuple(Name(TypeUrl.CLUSTER, str(InboundPort(plan.number))) for plan in open_plans)
    refs += tuple(dict.fromkeys(ref for plan in open_plans for ref in port_refs(view, plan.number)))
    return Built(INBOUND, pb.dump(listener), refs=refs, provenance=provenance, security=bool(security))


def _declared(view: View, own: Protocol, owners: Iterable[tuple[str, int]]) -> Protocol:
    """What the port speaks: as the workload says, else as a service before it declares."""
    if own is not Protocol.AUTO:
        return own
    for host, number in owners:
        known = service(view, host)
        port = known.port(number) if known is not None else None
        if port is not None and port.protocol is not Protocol.AUTO:
            return port.protocol
    return Protocol.AUTO


# -- chains ------------------------------------------------------------------------------------------------


def _add_chains(listener: Any, view: View, plan: PortPlan, trust_domain: str) -> None:
    chain = _chain(listener, f"mtls-{plan.number}")
    tls.mesh_server(chain.transport_socket, trust_domain, ALPN_L4)
    # The name in ALPN keeps Envoy from looking at the first bytes: the codec is the port's own.
    _add_application(chain, view, plan, _HTTP.HTTP2 if plan.protocol.is_http2 else _HTTP.AUTO)
    if plan.http:
        chain = _chain(listener, f"mtls-h2-{plan.number}")
        tls.mesh_server(chain.transport_socket, trust_domain, ALPN_H2)
        _add_application(chain, view, plan, _HTTP.HTTP2)
    if not _takes_plaintext(plan):
        return
    _add_application(_chain(listener, f"plain-{plan.number}"), view, plan, _HTTP.AUTO)
    if plan.http:
        # TLS that isn't the mesh's is the application's own: nothing in it can be parsed.
        foreign = _chain(listener, f"foreign-{plan.number}")
        _put_network_filters(foreign, view, plan)
        add_tcp(foreign, view, f"inbound_{plan.number}", str(InboundPort(plan.number)), on_demand=False)


def _takes_plaintext(plan: PortPlan) -> bool:
    return plan.mode.mode in (Inbound.PERMISSIVE, Inbound.DISABLE)


def _chain(listener: Any, name: str) -> Any:
    chain = listener.filter_chains.add()
    chain.name = name
    return chain


def _put_network_filters(chain: Any, view: View, plan: PortPlan) -> None:
    """What limits connections, before all else."""
    for name, config in network_filters(view, plan.number):
        network = chain.filters.add()
        network.name = name
        pb.put(network.typed_config, config)


def _add_application(chain: Any, view: View, plan: PortPlan, codec: Any) -> None:
    """To the application: parsed, where the workload or a policy asks for it, or as bytes."""
    cluster = str(InboundPort(plan.number))
    _put_network_filters(chain, view, plan)
    if not plan.http:
        add_tcp(chain, view, f"inbound_{plan.number}", cluster, on_demand=False)
        return
    manager = hcm.new_manager(f"inbound_{plan.number}")
    manager.codec_type = codec
    manager.forward_client_cert_details = _HTTP.SANITIZE_SET
    manager.set_current_client_cert_details.subject.value = True
    manager.set_current_client_cert_details.uri = True
    pb.duration(manager.stream_idle_timeout, 0)
    routes = manager.route_config
    routes.name = cluster
    routes.validate_clusters.value = False
    virtual_host = routes.virtual_hosts.add()
    virtual_host.name = f"inbound|http|{plan.number}"
    virtual_host.domains.append("*")
    route = route_components_pb2.Route()
    route.name = "default"
    route.match.prefix = "/"
    route.route.cluster = cluster
    pb.duration(route.route.timeout, 0)
    add_critical_routes(virtual_host, view, plan.number, route)
    virtual_host.routes.append(route)
    hcm.put_filters(manager, chain_filters(view, Place.INBOUND, on_demand=False, port=plan.number))
    hcm.add_to(chain, manager, view)


def _add_refusing(listener: Any, view: View) -> None:
    chain = _chain(listener, "refuse")
    add_tcp(chain, view, "inbound_refused", "BlackHoleCluster", on_demand=False)
    chain.filter_chain_match.destination_port.value = 1
    chain.filter_chain_match.source_ports.append(1)


# -- which chain -------------------------------------------------------------------------------------------


def _put_matcher(matcher: Any, plans: list[PortPlan]) -> None:
    """First by the server name of the mesh, otherwise by the port that was dialled."""
    tree = matcher.matcher_tree
    _input(tree, "server-name", _BY_SERVER_NAME)
    for service_port, owners in sorted(_by_service_port(plans).items()):
        on_match = tree.prefix_match_map.map[f"outbound_.{service_port}_."]
        _put_owners(on_match, owners)
    plaintext = [plan for plan in plans if _takes_plaintext(plan)]
    if not plaintext:
        return
    by_port = matcher.on_no_match.matcher.matcher_tree
    _input(by_port, "port", _BY_PORT)
    for plan in plaintext:
        on_match = by_port.exact_match_map.map[str(plan.number)]
        if plan.http:
            by_transport = on_match.matcher.matcher_tree
            _input(by_transport, "transport", _BY_TRANSPORT)
            _to(by_transport.exact_match_map.map["raw_buffer"], f"plain-{plan.number}")
            _to(by_transport.exact_match_map.map["tls"], f"foreign-{plan.number}")
        else:
            _to(on_match, f"plain-{plan.number}")


def _by_service_port(plans: list[PortPlan]) -> dict[int, list[tuple[str, PortPlan]]]:
    """For each service port that callers name: the hosts that have it, and the ports behind them."""
    found: dict[int, list[tuple[str, PortPlan]]] = {}
    for plan in plans:
        for service_port, host in plan.called_as:
            found.setdefault(service_port, []).append((host, plan))
    return found


def _put_owners(on_match: Any, owners: list[tuple[str, PortPlan]]) -> None:
    """One port of the workload, or, where several services have the same port, one for each host."""
    if len({plan.number for _, plan in owners}) == 1:
        _put_depths(on_match, owners[0][1])
        return
    anybody = next((plan for host, plan in owners if not host), None)
    matchers = on_match.matcher.matcher_list
    for host, plan in sorted((o for o in owners if o[0]), key=lambda o: o[0]):
        entry = matchers.matchers.add()
        predicate = entry.predicate.single_predicate
        predicate.input.name = "server-name"
        pb.put(predicate.input.typed_config, _BY_SERVER_NAME)
        predicate.value_match.suffix = f"_.{host}"
        _put_depths(entry.on_match, plan)
    if anybody is not None:
        _put_depths(on_match.matcher.on_no_match, anybody)


def _put_depths(on_match: Any, plan: PortPlan) -> None:
    by_alpn = on_match.matcher.matcher_tree
    _input(by_alpn, "alpn", _BY_ALPN)
    _to(by_alpn.exact_match_map.map[f"'{ALPN_L4}'"], f"mtls-{plan.number}")
    if plan.http:
        _to(by_alpn.exact_match_map.map[f"'{ALPN_H2}'"], f"mtls-h2-{plan.number}")


def _input(tree: Any, name: str, parts: tuple[str, bytes]) -> None:
    tree.input.name = name
    pb.put(tree.input.typed_config, parts)


def _to(on_match: Any, chain: str) -> None:
    on_match.action.name = chain
    pb.pack(on_match.action.typed_config, wrappers_pb2.StringValue(value=chain))
