"""Route configurations of a gateway: whole, since a gateway knows all of its hosts.

All servers in plain text of one port share one route configuration, and a host that several of them serve
has the rules of all, the older Gateway's first. A server that ends TLS has one of its own: a request can't
reach another server's hosts by a ``Host`` header that isn't what its TLS greeting named.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import Any

from envoy.config.route.v3 import route_components_pb2, route_pb2

from retia.model.finding import Finding
from retia.model.resource import Built, Name, Provenance, TypeUrl
from retia.model.snapshot import View
from retia.policy.arrange import arrange
from retia.policy.edge import edge_hosts, edge_rules, edge_servers
from retia.policy.edge.forms import EdgeHost, EdgeProtocol, EdgeServer
from retia.policy.routing.forms import HttpRules, Target
from retia.translate import pb
from retia.translate.edge.connect import take_connect
from retia.translate.edge.ports import EdgePort, find_routes
from retia.translate.http_filters import put_host_features
from retia.translate.names import Outbound
from retia.translate.rules import MAX_BODY_BYTES, Scene, add_rule

HTTPS_PORT = 443
_VIRTUAL_HOSTS = 2
"""The field's number in ``RouteConfiguration``."""
HTTP3_OFFER_S = 86_400
"""How long a client may remember that there is HTTP/3 (RFC 7838); the default there."""


Source = tuple[str, Hashable]
"""A server's key and the source of one of its hosts."""


@dataclass(slots=True)
class _Domain:
    """One domain with what all servers together do there."""

    redirect: bool = False
    parts: list[tuple[EdgeServer, EdgeHost]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Made:
    """A virtual host, serialised, and what it refers to."""

    message: bytes
    clusters: tuple[str, ...]
    provenance: tuple[Provenance, ...]


def build_edge_routes(view: View, name: str) -> Built:
    """The route configuration of that name; no message where no server of this proxy has it."""
    found = find_routes(view, name)
    if found is None:
        return Built(name, None)
    port, servers = found
    config = route_pb2.RouteConfiguration()
    config.name = name
    config.validate_clusters.value = False
    config.ignore_port_in_host_matching = True
    config.max_direct_response_body_size_bytes.value = MAX_BODY_BYTES
    if any(server.http3 for server in servers):
        offer = config.response_headers_to_add.add()
        offer.header.key = "alt-svc"
        offer.header.value = f'h3=":{port.number}"; ma={HTTP3_OFFER_S}'
    domains, provenance, findings = _gather(view, servers)
    made = [_virtual_host(view, servers[0].port, port, d, domains[d]) for d in sorted(domains)]
    message = pb.dump(config) + pb.repeated(_VIRTUAL_HOSTS, (each.message for each in made))
    clusters = {cluster for each in made for cluster in each.clusters}
    return Built(
        name,
        message,
        refs=tuple(Name(TypeUrl.CLUSTER, cluster) for cluster in sorted(clusters)),
        provenance=(*provenance, *dict.fromkeys(p for each in made for p in each.provenance)),
        findings=tuple(findings),
    )


def _gather(
    view: View, servers: Iterable[EdgeServer]
) -> tuple[dict[str, _Domain], tuple[Provenance, ...], list[Finding]]:
    domains: dict[str, _Domain] = {}
    provenance: dict[Provenance, None] = {}
    findings: dict[Finding, None] = {}
    for server in servers:
        provenance[Provenance(server.ref, server.field)] = None
        for edge_host in edge_hosts(view, server.key):
            provenance.update(dict.fromkeys(edge_host.rules.provenance))
            findings.update(dict.fromkeys(edge_host.rules.findings))
            for domain in edge_host.domains:
                host = domains.setdefault(domain, _Domain())
                host.redirect = host.redirect or server.https_redirect
                host.parts.append((server, edge_host))
        if server.https_redirect:
            for domain in server.hosts:
                domains.setdefault(domain, _Domain()).redirect = True
    return domains, tuple(provenance), list(findings)


def _virtual_host(view: View, number: int, port: EdgePort, domain: str, host: _Domain) -> _Made:
    """Made once for as long as nothing that concerns it has changed, where all of its rules have sources."""
    redirect = (port.number, _bound_https(view)) if host.redirect else None
    name = f"{domain}:{number}"
    if all(part.source is not None for _, part in host.parts):
        sources = tuple((server.key, part.source) for server, part in host.parts)
        return view.query(_from_sources, (name, domain, redirect, sources))
    return _make(view, name, domain, redirect, (part.rules for _, part in host.parts))


def _from_sources(view: View, key: tuple[str, str, tuple[int, int] | None, tuple[Source, ...]]) -> _Made:
    name, domain, redirect, sources = key
    return _make(view, name, domain, redirect, (edge_rules(view, source) for source in sources))


def _make(
    view: View, name: str, domain: str, redirect: tuple[int, int] | None, parts: Iterable[HttpRules]
) -> _Made:
    """The rules of all servers that serve the domain, the older server's first, each rule once."""
    virtual_host = route_components_pb2.VirtualHost()
    virtual_host.name = name
    virtual_host.domains.append(domain)
    if redirect is not None:
        _put_redirect(virtual_host, *redirect)
    together = tuple(dict.fromkeys(rule for part in parts for rule in part.rules))
    scene = Scene(view, _cluster_of)
    rules, arranged_by = arrange(view, together, gateway=True)
    scene.provenance.extend(arranged_by)
    for rule in rules:
        add_rule(virtual_host, scene, rule)
    take_connect(virtual_host)
    put_host_features(virtual_host, scene, together)
    return _Made(pb.dump(virtual_host), tuple(sorted(scene.clusters)), tuple(scene.provenance))


def _cluster_of(target: Target) -> str:
    return str(Outbound(target.port, target.subset, target.host))


def _put_redirect(virtual_host: Any, bound: int, secure: int) -> None:
    """Send plain text to ``https``. Where the proxy binds other ports than clients are told, a client that
    named the ``bound`` one is sent to the bound one for ``https`` (``secure``; 0: there is none)."""
    if secure in (0, HTTPS_PORT):
        virtual_host.require_tls = virtual_host.ALL
        return
    for named in (True, False):
        route = virtual_host.routes.add()
        route.name = "https-redirect"
        route.match.prefix = "/"
        proto = route.match.headers.add()
        proto.name = "x-forwarded-proto"
        proto.string_match.exact = "https"
        proto.invert_match = True
        if named:
            authority = route.match.headers.add()
            authority.name = ":authority"
            authority.string_match.suffix = f":{bound}"
            route.redirect.port_redirect = secure
        route.redirect.https_redirect = True


def _bound_https(view: View) -> int:
    """Where this proxy binds the port of ``https``; 0: it has none."""
    servers = view.query(edge_servers, "").servers
    found = (s.bind_port for s in servers if s.port == HTTPS_PORT and s.protocol is EdgeProtocol.HTTPS)
    return next(found, 0)
