"""Walks a request through generated resources, as Envoy would.

This is what Envoy's documentation says about matching, written a second time and independently of the
translator: a golden file shows *that* output changed, this shows whether it still means the right thing.
Chance isn't decided: a split is returned as its shares.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from envoy.extensions.filters.http.fault.v3 import fault_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2
from envoy.extensions.transport_sockets.tls.v3 import tls_pb2
from google.protobuf import wrappers_pb2

from retia.model.resource import TypeUrl
from retia.translate.hcm import HCM
from retia.translate.http_filters import FAULT
from tests.support.world import Mesh


@dataclass(frozen=True)
class Request:
    """What a client sends, and to which port it connected."""

    host: str
    port: int = 9080
    path: str = "/"
    method: str = "GET"
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def all_headers(self) -> dict[str, str]:
        own = {":method": self.method, ":authority": self.host, ":scheme": "http", ":path": self.path}
        return {**own, **{name.lower(): value for name, value in self.headers.items()}}


@dataclass(frozen=True)
class Outcome:
    """What becomes of a request. ``shares``: cluster to share of requests."""

    status: int = 0
    """Answered by the client's proxy; 0: sent on."""
    shares: dict[str, float] = field(default_factory=dict)
    route: Any = None

    @property
    def cluster(self) -> str:
        """The one cluster that gets all."""
        assert len(self.shares) == 1, self.shares
        return next(iter(self.shares))

    @property
    def action(self) -> Any:
        return self.route.route

    @property
    def fault(self) -> Any:
        """What the fault filter does to it, if anything."""
        if FAULT not in self.route.typed_per_filter_config:
            return None
        message = fault_pb2.HTTPFault()
        self.route.typed_per_filter_config[FAULT].Unpack(message)
        return message

    @property
    def timeout_s(self) -> float:
        timeout = self.action.timeout
        return float(timeout.seconds + timeout.nanos / 1e9)


def send(mesh: Mesh, request: Request) -> Outcome:
    """The request through the client's outbound listener."""
    manager = _manager_of(mesh, request.port)
    assert manager.rds.route_config_name == str(request.port)
    assert mesh.route_config(str(request.port)).HasField("vhds")
    name = f"{request.port}/{request.host.lower()}"
    built = mesh.built(TypeUrl.VIRTUAL_HOST, name)
    assert name in built.aliases, f"{name} would hang: {built.aliases}"
    if built.message is None:
        return Outcome(404)
    host = mesh.virtual_host(name)
    assert _covers(host.domains, request.host.lower()), (list(host.domains), request.host)
    for route in host.routes:
        if _matches(route.match, request):
            return _act(mesh, route)
    return Outcome(404)


def _manager_of(mesh: Mesh, port: int) -> Any:
    listener = mesh.listener("outbound-http")
    for chain in listener.filter_chains:
        if chain.filter_chain_match.destination_port.value == port:
            return _manager(chain)
    raise AssertionError(f"no HTTP chain for port {port}")


def _manager(chain: Any) -> Any:
    assert chain.filters[-1].name == HCM
    manager = http_connection_manager_pb2.HttpConnectionManager()
    chain.filters[-1].typed_config.Unpack(manager)
    return manager


def _covers(domains: Any, host: str) -> bool:
    return any(d == host or d == "*" or (d.startswith("*.") and host.endswith(d[1:])) for d in domains)


def _act(mesh: Mesh, route: Any) -> Outcome:
    if route.HasField("direct_response"):
        return Outcome(route.direct_response.status, route=route)
    if route.HasField("redirect"):
        return Outcome({0: 301, 1: 302, 2: 303, 3: 307, 4: 308}[route.redirect.response_code], route=route)
    weighted = route.route.weighted_clusters.clusters
    clusters = {w.name: w.weight.value for w in weighted} if weighted else {route.route.cluster: 1}
    total = sum(clusters.values())
    missing = [c for c in clusters if not mesh.exists(TypeUrl.CLUSTER, c)]
    if len(missing) == len(clusters):
        return Outcome(503, route=route)
    return Outcome(0, {name: weight / total for name, weight in clusters.items()}, route)


def _matches(match: Any, request: Request) -> bool:
    if match.HasField("connect_matcher"):
        return request.method == "CONNECT"
    path, _, query = request.path.partition("?")
    return (
        _path_matches(match, path)
        and all(_header_matches(h, request.all_headers) for h in match.headers)
        and all(_parameter_matches(p, query) for p in match.query_parameters)
    )


def _path_matches(match: Any, path: str) -> bool:
    kind = match.WhichOneof("path_specifier")
    if kind == "safe_regex":
        return re.fullmatch(match.safe_regex.regex, path) is not None
    wanted = getattr(match, kind)
    if match.HasField("case_sensitive") and not match.case_sensitive.value:
        path, wanted = path.lower(), wanted.lower()
    return path == wanted if kind == "path" else path.startswith(wanted)


def _header_matches(matcher: Any, headers: dict[str, str]) -> bool:
    value = headers.get(matcher.name.lower())
    if matcher.WhichOneof("header_match_specifier") == "present_match":
        found = (value is not None) == matcher.present_match
    elif value is None:
        if not matcher.treat_missing_header_as_empty:
            return False
        found = _text_matches(matcher.string_match, "")
    else:
        found = _text_matches(matcher.string_match, value)
    return found is not matcher.invert_match


def _parameter_matches(matcher: Any, query: str) -> bool:
    values = dict(pair.partition("=")[::2] for pair in query.split("&") if pair)
    if matcher.WhichOneof("query_parameter_match_specifier") == "present_match":
        return matcher.name in values
    return matcher.name in values and _text_matches(matcher.string_match, values[matcher.name])


def _text_matches(matcher: Any, text: str) -> bool:
    kind = matcher.WhichOneof("match_pattern")
    if kind == "exact":
        return bool(text == matcher.exact)
    if kind == "prefix":
        return text.startswith(matcher.prefix)
    if kind == "suffix":
        return text.endswith(matcher.suffix)
    return re.fullmatch(matcher.safe_regex.regex, text) is not None


# -- the other side ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Hello:
    """How a connection begins: in plaintext, with foreign TLS, or with the mesh's."""

    port: int = 15006
    server_name: str = ""
    alpn: tuple[str, ...] = ()
    tls: bool = False


@dataclass(frozen=True)
class Arrival:
    """The chain that takes a connection, and what it does. ``chain`` empty: refused."""

    chain: str = ""
    cluster: str = ""
    http: bool = False
    mutual_tls: bool = False
    trusts: str = ""


def hello_of(mesh: Mesh, cluster_name: str) -> Hello:
    """How a client's proxy begins a connection of a cluster to a peer that has the mesh's TLS."""
    socket = mesh.cluster(cluster_name).transport_socket
    if not socket.name:
        return Hello(port=int(cluster_name.split("|")[1]))
    context = tls_pb2.UpstreamTlsContext()
    socket.typed_config.Unpack(context)
    return Hello(15006, context.sni, tuple(context.common_tls_context.alpn_protocols), tls=True)


def arrive(mesh: Mesh, hello: Hello) -> Arrival:
    """A connection at a workload's inbound listener."""
    listener = mesh.listener("inbound")
    ports = [listener.address.socket_address.port_value]
    ports += [extra.address.socket_address.port_value for extra in listener.additional_addresses]
    assert hello.port in ports, f"nobody listens on {hello.port}"
    if not listener.HasField("filter_chain_matcher"):
        return Arrival()
    name = _walk(listener.filter_chain_matcher, hello)
    if not name:
        return Arrival()
    chain = next(c for c in listener.filter_chains if c.name == name)
    trusts = ""
    if chain.HasField("transport_socket"):
        context = tls_pb2.DownstreamTlsContext()
        chain.transport_socket.typed_config.Unpack(context)
        validation = context.common_tls_context.combined_validation_context.default_validation_context
        trusts = validation.match_typed_subject_alt_names[0].matcher.prefix
        assert context.require_client_certificate.value
    if chain.filters[-1].name == HCM:
        route = _manager(chain).route_config.virtual_hosts[0].routes[0]
        return Arrival(name, route.route.cluster, True, bool(trusts), trusts)
    proxy = tcp_proxy_pb2.TcpProxy()
    chain.filters[-1].typed_config.Unpack(proxy)
    return Arrival(name, proxy.cluster, False, bool(trusts), trusts)


def _walk(matcher: Any, hello: Hello) -> str:
    for entry in matcher.matcher_list.matchers:
        predicate = entry.predicate.single_predicate
        text = _input(predicate.input.name, hello)
        if text and _text_matches(predicate.value_match, text):
            return _follow(entry.on_match, hello)
    if matcher.HasField("matcher_tree"):
        tree = matcher.matcher_tree
        text = _input(tree.input.name, hello)
        if tree.HasField("exact_match_map") and text in tree.exact_match_map.map:
            return _follow(tree.exact_match_map.map[text], hello)
        if tree.HasField("prefix_match_map"):
            prefixes = [p for p in tree.prefix_match_map.map if text.startswith(p)]
            if prefixes:
                return _follow(tree.prefix_match_map.map[max(prefixes, key=len)], hello)
    return _follow(matcher.on_no_match, hello) if matcher.HasField("on_no_match") else ""


def _follow(on_match: Any, hello: Hello) -> str:
    if on_match.HasField("matcher"):
        return _walk(on_match.matcher, hello)
    value = wrappers_pb2.StringValue()
    on_match.action.typed_config.Unpack(value)
    return str(value.value)


def _input(name: str, hello: Hello) -> str:
    return {
        "server-name": hello.server_name,
        "alpn": ",".join(f"'{p}'" for p in hello.alpn),
        "port": str(hello.port),
        "transport": "tls" if hello.tls else "raw_buffer",
    }[name]
