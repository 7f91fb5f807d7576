"""Gateways of the Gateway API for the proxies that serve them.

A request belongs to one listener, the one of its port with the most specific host name; routes attached to
others don't see it. So every listener's own host has a place of its own, with 404 where no route is attached,
and at TLS a request whose ``Host`` belongs to another listener of the port gets 421.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from retia.config.codes import Code, finding
from retia.model.finding import Finding
from retia.model.ids import wildcards_of
from retia.model.objects import ConfigObject, ObjectRef
from retia.model.resource import Provenance
from retia.model.snapshot import View
from retia.policy.edge.forms import EdgeHost, EdgeServer, EdgeServers
from retia.policy.gateway_api import hostnames, stream_rules
from retia.policy.gateway_api.attachment import Attached, attachments
from retia.policy.gateway_api.http_rules import Place, Ranked, ranked_rules
from retia.policy.gateway_api.listeners import Listener, gateway_of, listeners
from retia.policy.routing.forms import Answer, HttpRule, HttpRules, TcpRules

PREFIX = "gateway-api/"
NOT_FOUND = 404
MISDIRECTED = 421


def servers(view: View, _key: str) -> EdgeServers:
    """The listeners of this proxy's Gateway that can be served."""
    gateway = gateway_of(view)
    if gateway is None:
        return EdgeServers()
    found = view.query(listeners, (gateway.ref.namespace, gateway.ref.name))
    noticed = tuple(each for listener in found for each in findings(listener))
    return EdgeServers(
        tuple(_server(each) for each in found if each.served),
        noticed,
        tuple(Provenance(each.owner, each.field) for each in found),
    )


def hosts(view: View, key: str) -> tuple[EdgeHost, ...]:
    """The hosts of a listener and their rules, in the specification's order."""
    gateway, listener, others = _find(view, key)
    if gateway is None or listener is None:
        return ()
    attached = view.query(attachments, (gateway.ref.namespace, gateway.ref.name)).of(listener)
    by_host: dict[str, list[Attached]] = {listener.host: []}
    for each in attached:
        for host in each.hosts:
            by_host.setdefault(host, []).append(each)
    domains = [host for host in by_host if host == listener.host or _owns(listener, others, host)]
    found = [_edge_host(view, listener, domain, by_host) for domain in domains]
    return (*found, *_misdirected(listener, others, domains))


def tcp(view: View, key: str) -> TcpRules:
    """Where connections at a TLS or TCP listener go."""
    gateway, listener, _ = _find(view, key)
    if gateway is None or listener is None:
        return TcpRules(())
    attached = view.query(attachments, (gateway.ref.namespace, gateway.ref.name)).of(listener)
    return stream_rules.of_listener(view, attached)


def _find(view: View, key: str) -> tuple[ConfigObject | None, Listener | None, tuple[Listener, ...]]:
    """The proxy's Gateway, the listener of that key, and the other listeners of its port and protocol."""
    gateway = gateway_of(view)
    if gateway is None:
        return None, None, ()
    found = view.query(listeners, (gateway.ref.namespace, gateway.ref.name))
    listener = next((each for each in found if PREFIX + each.key == key and each.served), None)
    if listener is None:
        return gateway, None, ()
    others = tuple(
        each
        for each in found
        if each.served
        and each.key != listener.key
        and (each.port, each.protocol) == (listener.port, listener.protocol)
    )
    return gateway, listener, others


def _server(listener: Listener) -> EdgeServer:
    return EdgeServer(
        key=PREFIX + listener.key,
        port=listener.port,
        protocol=listener.edge_protocol,
        hosts=(listener.host,),
        ref=listener.owner,
        field=listener.field,
        name=listener.name,
        tls=listener.tls,
    )


def _owns(listener: Listener, others: Iterable[Listener], host: str) -> bool:
    """Whether requests for a host belong to this listener rather than to a more specific one."""
    return hostnames.owner(host, (listener.host, *(each.host for each in others))) == listener.host


def _edge_host(
    view: View, listener: Listener, domain: str, by_host: Mapping[str, list[Attached]]
) -> EdgeHost:
    """The rules of all routes whose host names cover a domain; of the more specific name first."""
    place = Place(
        listener.port,
        "https" if listener.protocol == "HTTPS" else "http",
        "" if domain.startswith("*") else domain,
    )
    ordered: list[tuple[tuple[int, int], Ranked]] = []
    provenance: list[Provenance] = []
    seen: set[ObjectRef] = set()
    for host in (domain, *wildcards_of(domain)):
        exact, length = hostnames.specificity(host)
        for each in by_host.get(host, ()):
            route: ConfigObject | None = view.fact("config", *each.route.key)
            if route is None or each.route in seen:
                continue
            seen.add(each.route)
            ordered += [((-exact, -length), ranked) for ranked in ranked_rules(view, route, place)]
            provenance.append(Provenance(each.route, "spec"))
    ordered.sort(key=lambda pair: (pair[0], pair[1].rank))
    rules = tuple(ranked.rule for _, ranked in ordered)
    return EdgeHost((domain,), HttpRules(rules or (_no_route(listener),), tuple(provenance)))


def _no_route(listener: Listener, status: int = NOT_FOUND) -> HttpRule:
    return HttpRule(field=listener.field, name="no-route", answer=Answer(status), ref=listener.owner)


def _misdirected(listener: Listener, others: Iterable[Listener], domains: list[str]) -> Iterable[EdgeHost]:
    """Hosts of other listeners: a client that reuses a connection is told to open one of its own."""
    if listener.protocol != "HTTPS":
        return
    for host in dict.fromkeys(each.host for each in others):
        if host not in domains:
            yield EdgeHost((host,), HttpRules((_no_route(listener, MISDIRECTED),)))


def findings(listener: Listener) -> Iterable[Finding]:
    """What is wrong with a listener, as the status says it."""
    for code, reason in (
        (Code.HOST_CONFLICT, listener.conflicted),
        (Code.UNKNOWN_OBJECT, listener.refused),
        (Code.NO_CERTIFICATE if listener.useless else Code.UNKNOWN_OBJECT, listener.unresolved),
    ):
        if reason is not None:
            effect = "it is served in part" if listener.served else "it is not served"
            message = f"listener {listener.name}: {reason.message} ({reason.word}); {effect}"
            yield finding(code, message, ref=listener.owner, field=listener.field)
