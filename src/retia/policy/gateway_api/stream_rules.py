"""TCPRoute and TLSRoute: where connections go. Weights choose among backends; a share whose backend is wrong
is closed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from retia.model.objects import ConfigObject
from retia.model.resource import Provenance
from retia.model.snapshot import View
from retia.policy.gateway_api import hostnames
from retia.policy.gateway_api.attachment import Attached
from retia.policy.gateway_api.backends import backend
from retia.policy.gateway_api.http_rules import Trouble
from retia.policy.gateway_api.listeners import Reason
from retia.policy.gateway_api.names import TLS_ROUTE
from retia.policy.routing.forms import BROKEN, TcpRule, TcpRules, WeightedTarget


def of_listener(view: View, attached: Iterable[Attached]) -> TcpRules:
    """The rules of a listener: by server name, the most specific first; else the oldest route's."""
    ordered: list[tuple[Any, TcpRule]] = []
    provenance: list[Provenance] = []
    for each in attached:
        route: ConfigObject | None = view.fact("config", *each.route.key)
        if route is None:
            continue
        rule = of_route(view, route)
        named = each.route.kind == TLS_ROUTE and each.hosts != (hostnames.ANY,)
        for host in each.hosts if named else (hostnames.ANY,):
            exact, length = hostnames.specificity(host)
            snis = (host,) if host != hostnames.ANY else ()
            rank = (not snis, -exact, -length, route.order)
            ordered.append((rank, TcpRule(rule.field, rule.targets, snis, ref=route.ref)))
        provenance.append(Provenance(route.ref, rule.field))
    ordered.sort(key=lambda pair: pair[0])
    return TcpRules(tuple(rule for _, rule in ordered), tuple(provenance))


def of_route(view: View, route: ConfigObject) -> TcpRule:
    """The one rule of a route for every connection."""
    targets: list[WeightedTarget] = []
    for ref in route.spec.rules[0].backend_refs:
        if not ref.weight:
            continue
        found = backend(view, route.ref, ref)
        if isinstance(found, Reason):
            targets.append(WeightedTarget(BROKEN, ref.weight, broken=True))
        else:
            targets.append(WeightedTarget(found.target, ref.weight))
    if all(each.broken for each in targets):
        targets = []
    return TcpRule("spec.rules[0]", tuple(targets), ref=route.ref)


def troubles(view: View, route: ConfigObject) -> tuple[Trouble, ...]:
    """The backends of a route that can't be used."""
    found = []
    for index, ref in enumerate(route.spec.rules[0].backend_refs):
        judged = backend(view, route.ref, ref)
        if isinstance(judged, Reason):
            found.append(Trouble(f"spec.rules[0].backendRefs[{index}]", judged))
    return tuple(found)
