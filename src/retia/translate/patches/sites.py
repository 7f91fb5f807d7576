"""What a change is for: which clusters, listeners, chains, virtual hosts and routes its match means.

Names that users match on are Istio's. Where this mesh's listeners differ (one listener with a chain for each
port, where Istio has a listener for each port), a port is looked for in the chains, and Istio's names of
listeners are understood: ``virtualInbound``, ``virtualOutbound``, ``0.0.0.0_9080``.
"""

from __future__ import annotations

from typing import Any

from retia.config.schema.envoy_filter import (
    ApplyTo,
    ClusterMatch,
    ListenerMatch,
    RouteAction,
    RouteConfigurationMatch,
)
from retia.model.resource import Name, TypeUrl
from retia.policy.patches import Change
from retia.translate.hcm import HCM
from retia.translate.names import INBOUND, InboundPort, Outbound, parse_cluster

_OLD_NAMES = {
    "envoy.http_connection_manager": HCM,
    "envoy.filters.network.http_connection_manager": HCM,
    "envoy.router": "envoy.filters.http.router",
    "envoy.tcp_proxy": "envoy.filters.network.tcp_proxy",
    "envoy.cors": "envoy.filters.http.cors",
    "envoy.fault": "envoy.filters.http.fault",
}
"""Names that filters had in Envoy's v2 API and that old objects still match on."""


def today(name: str) -> str:
    """The name that a filter has now."""
    return _OLD_NAMES.get(name, name)


def is_inbound(name: Name) -> bool:
    if name.type is TypeUrl.LISTENER:
        return name.name == INBOUND
    return name.type is TypeUrl.CLUSTER and isinstance(parse_cluster(name.name), InboundPort)


def is_cluster(change: Change, message: Any) -> bool:
    match = change.patch.match.cluster if change.patch.match is not None else None
    if match is None:
        return change.patch.match is None or only_context(change)
    return _cluster_matches(match, message)


def only_context(change: Change) -> bool:
    match = change.patch.match
    return match is None or (
        match.listener is None and match.route_configuration is None and match.cluster is None
    )


def _cluster_matches(match: ClusterMatch, message: Any) -> bool:
    names = (message.name, message.alt_stat_name)
    if match.name:
        return match.name in names
    parsed = parse_cluster(message.alt_stat_name or message.name)
    if isinstance(parsed, InboundPort):
        return not match.service and not match.subset and match.port_number in (0, parsed.port)
    if not isinstance(parsed, Outbound):
        return not (match.service or match.subset or match.port_number)
    return (
        match.service in ("", parsed.host)
        and match.subset in ("", parsed.subset)
        and match.port_number in (0, parsed.port)
    )


def listener_match(change: Change) -> ListenerMatch | None:
    return change.patch.match.listener if change.patch.match is not None else None


def is_listener(change: Change, message: Any) -> bool:
    if not only_context(change) and listener_match(change) is None:
        return False
    match = listener_match(change)
    if match is None:
        return True
    ports = {message.address.socket_address.port_value, *(_port_of(c) for c in _all_chains(message))}
    if match.port_number and match.port_number not in ports:
        return False
    return not match.name or match.name in _names_of(message, ports)


def _names_of(message: Any, ports: set[int]) -> set[str]:
    """The names by which users of Istio know a listener."""
    names = {message.name}
    if message.name == INBOUND:
        names.add("virtualInbound")
    elif message.name.startswith("outbound-"):
        names |= {"virtualOutbound", *(f"0.0.0.0_{port}" for port in ports if port)}
    return names


def _all_chains(message: Any) -> list[Any]:
    return [
        *message.filter_chains,
        *([message.default_filter_chain] if message.HasField("default_filter_chain") else []),
    ]


def _port_of(chain: Any) -> int:
    """The port that a chain is for; 0: any. Inbound chains have it in their names (``mtls-9080``)."""
    port = int(chain.filter_chain_match.destination_port.value)
    tail = chain.name.rpartition("-")[2]
    return port or (int(tail) if tail.isdigit() and len(tail) < 6 else 0)


def is_chain(change: Change, listener: Any, chain: Any) -> bool:
    if not is_listener(change, listener):
        return False
    match = listener_match(change)
    if match is None:
        return True
    port = _port_of(chain)
    if match.port_number and port not in (0, match.port_number):
        return False
    wanted = match.filter_chain
    if wanted is None:
        return True
    its = chain.filter_chain_match
    return (
        wanted.name in ("", chain.name)
        and (not wanted.sni or wanted.sni in its.server_names)
        and wanted.transport_protocol in ("", its.transport_protocol)
        and _has_protocols(wanted.application_protocols, its.application_protocols)
        and wanted.destination_port in (0, port)
        and _has_filter(change, chain)
    )


def _has_protocols(wanted: str, given: Any) -> bool:
    return all(word.strip() in given for word in wanted.split(",") if word.strip())


def _has_filter(change: Change, chain: Any) -> bool:
    """Whether the chain has the filter that is named; of a NETWORK_FILTER that is what is changed."""
    name = filter_name(change)
    if not name or change.patch.apply_to is ApplyTo.NETWORK_FILTER:
        return True
    return any(each.name == name for each in chain.filters)


def filter_name(change: Change) -> str:
    match = listener_match(change)
    wanted = match.filter_chain.filter if match is not None and match.filter_chain is not None else None
    return today(wanted.name) if wanted is not None else ""


def sub_filter_name(change: Change) -> str:
    match = listener_match(change)
    wanted = match.filter_chain.filter if match is not None and match.filter_chain is not None else None
    return wanted.sub_filter.name if wanted is not None and wanted.sub_filter is not None else ""


def routes_match(change: Change) -> RouteConfigurationMatch | None:
    return change.patch.match.route_configuration if change.patch.match is not None else None


def is_routes(change: Change, name: str) -> bool:
    match = routes_match(change)
    if match is None:
        return only_context(change)
    head = name.split(".")
    numbers = [int(word) for word in (name, *head, *name.split("|")) if word.isdigit()]
    if match.port_number and match.port_number not in numbers:
        return False
    if match.port_name and match.port_name not in head:
        return False
    if match.gateway:
        namespace, _, gateway = match.gateway.rpartition("/")
        if head[-2:] != [gateway, namespace] and name != f"http.{match.port_number}":
            return False
    return match.name in ("", name)


def is_host(change: Change, message: Any, routes: str) -> bool:
    if not is_routes(change, routes):
        return False
    match = routes_match(change)
    wanted = match.vhost if match is not None else None
    if wanted is None:
        return True
    bare = message.name.rpartition("/")[2]
    return wanted.name in ("", message.name, bare) and (
        not wanted.domain_name or wanted.domain_name in message.domains
    )


def action_of(route: Any) -> RouteAction:
    match route.WhichOneof("action"):
        case "redirect":
            return RouteAction.REDIRECT
        case "direct_response":
            return RouteAction.DIRECT_RESPONSE
        case _:
            return RouteAction.ROUTE
