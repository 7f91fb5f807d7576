"""Routes whose parent is a Service, in the callers' sidecars (GAMMA).

Routes of the Service's namespace are its *producer's* and hold for all callers; routes of another namespace
are a *consumer's*, hold for callers of that namespace only, and there in place of the producer's. Of several
kinds for one port the most telling holds: GRPCRoute, HTTPRoute, TLSRoute, TCPRoute. Requests that no rule of
an attached route matches get 404. A VirtualService for the same host holds alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from retia.model.mesh import Protocol, Service
from retia.model.objects import ConfigObject
from retia.model.resource import Provenance
from retia.model.snapshot import View
from retia.policy.gateway_api import stream_rules
from retia.policy.gateway_api.http_rules import Place, Ranked, ranked_rules
from retia.policy.gateway_api.listeners import Reason
from retia.policy.gateway_api.names import GRPC_ROUTE, HTTP_ROUTE, TCP_ROUTE, TLS_ROUTE, parent_key
from retia.policy.indexes import objects
from retia.policy.registry import mesh, service
from retia.policy.routing.forms import HttpRules, TcpRule, TcpRules

_HTTP = (GRPC_ROUTE, HTTP_ROUTE)
_STREAM = (TLS_ROUTE, TCP_ROUTE)


def is_mesh_parent(parent: Any) -> bool:
    return parent.kind == "Service" and parent.group in ("", "core")


def http_rules(view: View, key: tuple[str, int]) -> HttpRules | None:
    """The rules for ``(host, port)`` at this sidecar; ``None``: no route is attached."""
    host, port = key
    routes = _holding(view, host, port, _HTTP, view.proxy("namespace"))
    if not routes:
        return None
    found: list[Ranked] = [each for route in routes for each in ranked_rules(view, route, Place(port))]
    found.sort(key=lambda each: each.rank)
    return HttpRules(
        tuple(each.rule for each in found), tuple(Provenance(route.ref, "spec") for route in routes)
    )


def tcp_rules(view: View, key: tuple[str, int]) -> TcpRules | None:
    """The same for connections."""
    host, port = key
    routes = _holding(view, host, port, _STREAM, view.proxy("namespace"))
    if not routes:
        return None
    rules: list[TcpRule] = []
    for route in routes:
        rule = stream_rules.of_route(view, route)
        rules.append(TcpRule(rule.field, rule.targets, getattr(route.spec, "hostnames", ()), ref=route.ref))
    rules.sort(key=lambda rule: not rule.snis)
    return TcpRules(tuple(rules), tuple(Provenance(route.ref, "spec") for route in routes))


def _holding(
    view: View, host: str, port: int, kinds: tuple[str, ...], namespace: str
) -> tuple[ConfigObject, ...]:
    """The routes that hold for callers of a namespace, the oldest first."""
    known = service(view, host)
    if known is None or known.host.startswith("*"):
        return ()
    attached = [route for route in _attached(view, known, port) if route.ref.kind in kinds]
    own = [route for route in attached if route.ref.namespace == namespace != known.namespace]
    found = own or [route for route in attached if route.ref.namespace == known.namespace]
    for kind in kinds:
        same = tuple(route for route in found if route.ref.kind == kind)
        if same:
            return same
    return ()


def _attached(view: View, known: Service, port: int) -> Iterator[ConfigObject]:
    for route in objects(view, "route-parent", parent_key("Service", known.namespace, known.name)):
        for parent in route.spec.parent_refs:
            mine = is_mesh_parent(parent) and parent.name == known.name
            if not mine or (parent.namespace or route.ref.namespace) != known.namespace:
                continue
            if parent.port in (None, port) and _section_fits(known, port, parent.section_name):
                yield route
                break


def _section_fits(known: Service, port: int, section: str | None) -> bool:
    served = known.port(port)
    return section is None or (served is not None and served.name == section)


def judge(view: View, route: ConfigObject, index: int) -> Reason | None:
    """Why a parent that is a Service doesn't take a route; ``None``: it does."""
    parent = route.spec.parent_refs[index]
    namespace = parent.namespace or route.ref.namespace
    known = service(view, f"{parent.name}.{namespace}.{mesh(view).dns_suffix}")
    where = f"Service {namespace}/{parent.name}"
    if known is None:
        return Reason("NoMatchingParent", f"{where} doesn't exist")
    ports = [
        each
        for each in known.ports
        if parent.port in (None, each.number) and parent.section_name in (None, each.name)
    ]
    if not ports:
        return Reason("NoMatchingParent", f"{where} has no such port")
    wants_http = route.ref.kind in _HTTP
    fitting = [
        each for each in ports if each.protocol is Protocol.AUTO or each.protocol.is_http is wants_http
    ]
    if not fitting:
        what = "HTTP" if wants_http else "opaque connections"
        return Reason("NotAllowedByListeners", f"no port of {where} that is meant carries {what}")
    rank = _HTTP if wants_http else _STREAM
    better = rank[: rank.index(route.ref.kind)]
    rivals = [
        other
        for port in fitting
        for other in _attached(view, known, port.number)
        if other.ref.kind in better and other.ref.namespace == route.ref.namespace
    ]
    if rivals:
        return Reason("NotAllowedByListeners", f"{rivals[0].ref} is attached, and a {better[0]} holds alone")
    return None
