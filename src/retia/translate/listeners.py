"""Outbound listeners: where an application's connections enter its proxy.

They hardly ever change: which services exist is no matter of theirs. ``outbound-http`` has one filter chain
for each port number that any service declares as HTTP, because route configurations are named by port;
``outbound-auto`` looks at the first bytes; ``outbound-tcp`` names its cluster by the address that was
dialled. ``explicit`` is an HTTP proxy, ``upstream-<port>`` a local port that stands for one service.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from retia.model.ids import Host
from retia.model.mesh import Protocol, ProxyKind, Upstream
from retia.model.resource import Built, Name, TypeUrl
from retia.model.snapshot import View
from retia.policy.registry import Destination, mesh, service
from retia.policy.scope import allow_any
from retia.translate import hcm, pb
from retia.translate.chains import (
    add_dialled_tcp,
    add_inspectors,
    add_original_destination,
    new_listener,
)
from retia.translate.edge.listeners import build_edge_listener, edge_listener_names
from retia.translate.gateway import build_gateway
from retia.translate.http_filters import HttpFilter, Place, chain_filters
from retia.translate.inbound import build_inbound
from retia.translate.names import (
    EXPLICIT,
    GATEWAY,
    INBOUND,
    OUTBOUND_AUTO,
    OUTBOUND_HTTP,
    OUTBOUND_TCP,
    Outbound,
    parse_dialled_listener,
    parse_upstream,
    placeholder,
    upstream_listener,
)
from retia.translate.tcp_routes import NO_RULES, add_rule_chains, dialled_listener, rules_at

_DETECTED_HTTP = ("http/1.0", "http/1.1", "h2c")


def listener_names(view: View) -> tuple[str, ...]:
    """The listeners of this proxy."""
    if view.proxy("kind") is ProxyKind.HOST_GATEWAY:
        return (GATEWAY,)
    if view.proxy("kind") is ProxyKind.GATEWAY:
        return edge_listener_names(view)
    names = [
        name
        for name, attribute in (
            (OUTBOUND_HTTP, "outbound_http_port"),
            (OUTBOUND_AUTO, "outbound_auto_port"),
            (OUTBOUND_TCP, "outbound_tcp_port"),
            (EXPLICIT, "explicit_port"),
            (INBOUND, "inbound_address"),
        )
        if view.proxy(attribute)
    ]
    names += [upstream_listener(upstream.local_port) for upstream in view.proxy("upstreams")]
    return tuple(sorted(names))


def build_listener(view: View, name: str) -> Built:
    """The listener of that name; no message where this proxy doesn't have it."""
    if view.proxy("kind") is ProxyKind.GATEWAY:
        return build_edge_listener(view, name)
    dialled = parse_dialled_listener(name)
    if dialled is not None:
        return dialled_listener(view, name, dialled)
    if name not in listener_names(view):
        return Built(name, None)
    match name:
        case "outbound-http":
            return _outbound_http(view)
        case "outbound-auto":
            return _outbound_auto(view)
        case "outbound-tcp":
            return _outbound_tcp(view)
        case "explicit":
            return _explicit(view)
        case "inbound":
            return build_inbound(view)
        case "gateway":
            return build_gateway(view)
        case _:
            return _upstream(view, name)


def find_upstream(view: View, name: str) -> Upstream | None:
    """The upstream of a listener or route configuration of that name."""
    port = parse_upstream(name)
    return next((u for u in view.proxy("upstreams") if u.local_port == port), None) if port else None


# -- outbound ----------------------------------------------------------------------------------------------


def _outbound_http(view: View) -> Built:
    listener = _captured(view, OUTBOUND_HTTP, "outbound_http_port")
    filters = chain_filters(view, Place.OUTBOUND, on_demand=True)
    ports = view.index("http-ports", "")
    for port in ports:
        chain = listener.filter_chains.add()
        chain.name = str(port)
        chain.filter_chain_match.destination_port.value = port
        _add_discovered_http(chain, view, f"outbound_{port}", str(port), filters)
    add_dialled_tcp(listener.default_filter_chain, view, "outbound_other")
    return Built(OUTBOUND_HTTP, pb.dump(listener), refs=_route_refs(ports))


def _outbound_auto(view: View) -> Built:
    """HTTP where the first bytes say so, within the time that the mesh allows; opaque otherwise."""
    listener = _captured(view, OUTBOUND_AUTO, "outbound_auto_port")
    add_inspectors(listener, mesh(view).protocol_detection_timeout_s)
    filters = chain_filters(view, Place.OUTBOUND, on_demand=True)
    ports = view.index("auto-ports", "")
    for port in ports:
        chain = listener.filter_chains.add()
        chain.name = str(port)
        chain.filter_chain_match.destination_port.value = port
        chain.filter_chain_match.transport_protocol = "raw_buffer"
        chain.filter_chain_match.application_protocols.extend(_DETECTED_HTTP)
        _add_discovered_http(chain, view, f"outbound_auto_{port}", str(port), filters)
    add_dialled_tcp(listener.default_filter_chain, view, "outbound_auto_tcp")
    return Built(OUTBOUND_AUTO, pb.dump(listener), refs=_route_refs(ports))


def _outbound_tcp(view: View) -> Built:
    listener = _captured(view, OUTBOUND_TCP, "outbound_tcp_port")
    add_dialled_tcp(listener.filter_chains.add(), view, "outbound_tcp")
    listener.filter_chains[0].name = "tcp"
    return Built(OUTBOUND_TCP, pb.dump(listener))


def _explicit(view: View) -> Built:
    """An HTTP proxy: the request names its destination. ``CONNECT`` carries what isn't HTTP."""
    listener = new_listener(EXPLICIT, view.proxy("outbound_address"), view.proxy("explicit_port"))
    chain = listener.filter_chains.add()
    chain.name = EXPLICIT
    manager = hcm.new_manager(EXPLICIT)
    manager.http_protocol_options.allow_absolute_url.value = True
    manager.upgrade_configs.add().upgrade_type = "CONNECT"
    hcm.put_discovered_routes(manager, EXPLICIT)
    filters = chain_filters(view, Place.OUTBOUND, on_demand=True, forward_proxy=allow_any(view))
    hcm.put_filters(manager, filters)
    hcm.add_to(chain, manager, view)
    refs = (Name(TypeUrl.ROUTE, EXPLICIT), Name(TypeUrl.VIRTUAL_HOST, placeholder(EXPLICIT)))
    return Built(EXPLICIT, pb.dump(listener), refs=refs)


def _upstream(view: View, name: str) -> Built:
    """A local port for one port of one service, in the protocol that the service declares."""
    upstream = find_upstream(view, name)
    assert upstream is not None  # its name is in listener_names
    listener = new_listener(name, "127.0.0.1", upstream.local_port)
    protocol = protocol_of(view, upstream.host, upstream.port)
    cluster = str(Outbound(upstream.port, "", upstream.host))
    refs: tuple[Name, ...] = (Name(TypeUrl.CLUSTER, cluster),)
    if protocol.is_http or protocol is Protocol.AUTO:
        refs = (*refs, Name(TypeUrl.ROUTE, name))
        chain = listener.filter_chains.add()
        chain.name = "http"
        filters = chain_filters(view, Place.OUTBOUND, on_demand=True)
        _add_discovered_http(chain, view, name, name, filters)
    rules = NO_RULES if protocol.is_http else rules_at(view, upstream.host, upstream.port)
    if protocol is Protocol.AUTO:
        chain.filter_chain_match.transport_protocol = "raw_buffer"
        chain.filter_chain_match.application_protocols.extend(_DETECTED_HTTP)
    if not protocol.is_http:
        stat_prefix = f"{name}-tcp" if protocol is Protocol.AUTO else name
        here = Destination(upstream.host, upstream.port)
        refs = tuple(dict.fromkeys((*refs, *add_rule_chains(view, listener, stat_prefix, here, rules))))
    if protocol is Protocol.AUTO:
        add_inspectors(listener, mesh(view).protocol_detection_timeout_s)
    elif any(rule.snis for rule in rules.rules):
        add_inspectors(listener, mesh(view).protocol_detection_timeout_s, http=False)
    shaped = rules.provenance
    return Built(name, pb.dump(listener), refs=refs, provenance=shaped, findings=rules.findings)


def protocol_of(view: View, host: Host, port: int) -> Protocol:
    """What a service's port declares; opaque TCP where there is no such service yet."""
    known = service(view, host)
    found = known.port(port) if known is not None else None
    return found.protocol if found is not None else Protocol.TCP


# -- parts ----------------------------------------------------------------------------------------------


def _captured(view: View, name: str, port_attribute: str) -> Any:
    """A listener that captured connections are redirected to: it asks where they were bound."""
    listener = new_listener(name, view.proxy("outbound_address"), view.proxy(port_attribute))
    add_original_destination(listener)
    return listener


def _add_discovered_http(
    chain: Any, view: View, stat_prefix: str, route_config: str, filters: Iterable[HttpFilter]
) -> None:
    manager = hcm.new_manager(stat_prefix)
    hcm.put_discovered_routes(manager, route_config)
    hcm.put_filters(manager, filters)
    hcm.add_to(chain, manager, view)


def _route_refs(ports: tuple[int, ...]) -> tuple[Name, ...]:
    routes = tuple(Name(TypeUrl.ROUTE, str(port)) for port in ports)
    return routes + tuple(Name(TypeUrl.VIRTUAL_HOST, placeholder(str(port))) for port in ports)
