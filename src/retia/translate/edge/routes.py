"""Route configurations of a gateway: whole, since a gateway knows all of its hosts.

All servers in plain text of one port share one route configuration, and a host that several of them serve
has the rules of all, the older Gateway's first. A server that ends TLS has one of its own: a request can't
reach another server's hosts by a ``Host`` header that isn't what its TLS greeting named.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from envoy.config.route.v3 import route_pb2

from retia.model.finding import Finding
from retia.model.resource import Built, Name, Provenance, TypeUrl
from retia.model.snapshot import View
from retia.policy.arrange import arrange
from retia.policy.edge import edge_hosts, edge_servers
from retia.policy.edge.forms import EdgeProtocol, EdgeServer
from retia.policy.routing.forms import HttpRule, Target
from retia.translate import pb
from retia.translate.edge.connect import take_connect
from retia.translate.edge.ports import EdgePort, find_routes
from retia.translate.http_filters import put_host_features
from retia.translate.names import Outbound
from retia.translate.routes import MAX_BODY_BYTES
from retia.translate.rules import Scene, add_rule

HTTPS_PORT = 443
HTTP3_OFFER_S = 86_400
"""How long a client may remember that there is HTTP/3 (RFC 7838); the default there."""


@dataclass(slots=True)
class _Host:
    """One domain with what all servers together do there."""

    redirect: bool = False
    rules: list[HttpRule] = field(default_factory=list)


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
    scene = Scene(view, _cluster_of)
    hosts, provenance, findings = _gather(view, servers)
    for domain in sorted(hosts):
        virtual_host = config.virtual_hosts.add()
        virtual_host.name = f"{domain}:{servers[0].port}"
        virtual_host.domains.append(domain)
        host = hosts[domain]
        if host.redirect:
            _put_redirect(view, virtual_host, port)
        rules, arranged_by = arrange(view, tuple(host.rules), gateway=True)
        scene.provenance.extend(arranged_by)
        for rule in rules:
            add_rule(virtual_host, scene, rule)
        take_connect(virtual_host)
        put_host_features(virtual_host, scene, host.rules)
    if any(server.http3 for server in servers):
        offer = config.response_headers_to_add.add()
        offer.header.key = "alt-svc"
        offer.header.value = f'h3=":{port.number}"; ma={HTTP3_OFFER_S}'
    refs = tuple(Name(TypeUrl.CLUSTER, cluster) for cluster in sorted(scene.clusters))
    origins = (*provenance, *scene.provenance)
    return Built(name, pb.dump(config), refs=refs, provenance=origins, findings=tuple(findings))


def _cluster_of(target: Target) -> str:
    return str(Outbound(target.port, target.subset, target.host))


def _gather(
    view: View, servers: Iterable[EdgeServer]
) -> tuple[dict[str, _Host], tuple[Provenance, ...], list[Finding]]:
    hosts: dict[str, _Host] = {}
    provenance: dict[Provenance, None] = {}
    findings: dict[Finding, None] = {}
    for server in servers:
        provenance[Provenance(server.ref, server.field)] = None
        for edge_host in view.query(edge_hosts, server.key):
            provenance.update(dict.fromkeys(edge_host.rules.provenance))
            findings.update(dict.fromkeys(edge_host.rules.findings))
            for domain in edge_host.domains:
                host = hosts.setdefault(domain, _Host())
                host.redirect = host.redirect or server.https_redirect
                host.rules += [rule for rule in edge_host.rules.rules if rule not in host.rules]
        if server.https_redirect:
            for domain in server.hosts:
                hosts.setdefault(domain, _Host()).redirect = True
    return hosts, tuple(provenance), list(findings)


def _put_redirect(view: View, virtual_host: Any, port: EdgePort) -> None:
    """Send plain text to ``https``. Where the proxy binds other ports than clients are told, a client that
    named the bound one is sent to the bound one for ``https``."""
    secure = _bound_https(view)
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
            authority.string_match.suffix = f":{port.number}"
            route.redirect.port_redirect = secure
        route.redirect.https_redirect = True


def _bound_https(view: View) -> int:
    """Where this proxy binds the port of ``https``; 0: it has none."""
    servers = view.query(edge_servers, "").servers
    found = (s.bind_port for s in servers if s.port == HTTPS_PORT and s.protocol is EdgeProtocol.HTTPS)
    return next(found, 0)
