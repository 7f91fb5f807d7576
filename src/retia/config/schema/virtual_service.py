"""``VirtualService``: where the requests to some hosts go. networking.istio.io."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated

from pydantic import Field

from retia.config import names
from retia.config.codes import Code
from retia.config.schema.base import Model, Problem
from retia.config.schema.headers import Headers
from retia.config.schema.http_action import (
    CorsPolicy,
    Destination,
    HTTPDirectResponse,
    HTTPFaultInjection,
    HTTPMirrorPolicy,
    HTTPRedirect,
    HTTPRetry,
    HTTPRewrite,
)
from retia.config.schema.http_match import HTTPMatchRequest
from retia.config.schema.types import (
    Count,
    DnsLabel,
    GatewayName,
    HostOrAddress,
    LabelMap,
    Network,
    Percent,
    Port,
    PositiveDuration,
    Text,
    Visibility,
    WholePercent,
    export_problems,
)

MAX_MATCHES = 5000
"""Matches of all rules of one protocol: each is a route at every caller's proxy. Arbitrary."""
MAX_HOSTS = 1000
"""Hosts of one object. Arbitrary."""
MESH_GATEWAY = "mesh"
"""The reserved name for all sidecars."""


class HTTPRouteDestination(Model):
    """One destination of a rule and its share."""

    destination: Destination
    weight: Count = 0
    """Its share of the sum of weights; for a single destination 0 means all."""
    headers: Headers | None = None


class RouteDestination(Model):
    """One destination of a TCP or TLS rule and its share."""

    destination: Destination
    weight: Count = 0


class Delegate(Model):
    """Another VirtualService whose rules are used."""

    name: Text = ""
    namespace: Text = ""
    """Empty: the same namespace."""


class HTTPRoute(Model):
    """One HTTP rule: the first whose match holds decides."""

    name: Text = ""
    match: tuple[HTTPMatchRequest, ...] = ()
    """Any of them must hold; none: always."""
    route: tuple[HTTPRouteDestination, ...] = ()
    redirect: HTTPRedirect | None = None
    direct_response: HTTPDirectResponse | None = None
    delegate: Delegate | None = None
    rewrite: HTTPRewrite | None = None
    timeout: PositiveDuration | None = None
    """For the whole request with its retries. Absent: none."""
    retries: HTTPRetry | None = None
    """Absent: the mesh's default."""
    fault: HTTPFaultInjection | None = None
    mirror: Destination | None = None
    mirrors: tuple[HTTPMirrorPolicy, ...] = ()
    mirror_percent: WholePercent | None = None
    mirror_percentage: Percent | None = None
    """The share that ``mirror`` gets. Absent: all."""
    cors_policy: CorsPolicy | None = None
    headers: Headers | None = None

    def problems(self) -> Iterator[Problem]:
        yield from self._action_problems()
        yield from weight_problems(self.route)
        if self.mirror and self.mirrors:
            yield Problem(("mirrors",), "must not stand beside mirror")
        yield from self._redirect_problems()
        yield from self._authority_problems()

    def _action_problems(self) -> Iterator[Problem]:
        if self.delegate:
            for field in ("redirect", "route"):
                if getattr(self, field):
                    yield Problem((field,), "must not stand beside delegate")
            return
        answer = "redirect" if self.redirect else "directResponse" if self.direct_response else ""
        if not answer:
            if not self.route:
                yield Problem((), "must have a route, redirect or directResponse", Code.MISSING_FIELD)
            return
        others: dict[str, object] = {"route": self.route, "fault": self.fault, "rewrite": self.rewrite}
        if answer == "redirect":
            others["directResponse"] = self.direct_response
        for field, value in others.items():
            if value:
                yield Problem((field,), f"must not stand beside {answer}")

    def _redirect_problems(self) -> Iterator[Problem]:
        if not self.redirect or not self.redirect.prefix_rewrite:
            return
        for index, match in enumerate(self.match):
            if match.uri and match.uri.prefix is None:
                yield Problem(
                    ("match", index, "uri"), "must be a prefix, because redirect has a prefixRewrite"
                )

    def _authority_problems(self) -> Iterator[Problem]:
        values = [self.rewrite.authority] if self.rewrite and self.rewrite.authority else []
        values += self.headers.authorities if self.headers else ()
        if len(values) > 1:
            message = f"sets the authority, which is set to {values[0]!r} already; it can be set once"
            yield Problem(("headers", "request"), message)

    @property
    def mirror_policies(self) -> tuple[HTTPMirrorPolicy, ...]:
        """``mirror`` or ``mirrors``, in one form. ``mirrorPercentage`` outweighs ``mirrorPercent``."""
        if not self.mirror:
            return self.mirrors
        share = self.mirror_percentage
        if share is None and self.mirror_percent is not None:
            share = Percent(value=float(self.mirror_percent))
        return (HTTPMirrorPolicy(destination=self.mirror, percentage=share),)


class L4MatchAttributes(Model):
    """Conditions on a connection."""

    destination_subnets: tuple[Network, ...] = ()
    port: Port | None = None
    source_subnet: Network | None = None
    source_labels: LabelMap = ()
    gateways: tuple[GatewayName, ...] = ()
    source_namespace: DnsLabel | None = None


class TLSMatchAttributes(Model):
    """Conditions on a TLS connection that is passed on unopened."""

    sni_hosts: tuple[HostOrAddress, ...]
    destination_subnets: tuple[Network, ...] = ()
    port: Port | None = None
    source_labels: LabelMap = ()
    gateways: tuple[GatewayName, ...] = ()
    source_namespace: DnsLabel | None = None

    def problems(self) -> Iterator[Problem]:
        if not self.sni_hosts:
            yield Problem(("sniHosts",), "must have at least one host", Code.MISSING_FIELD)


class TCPRoute(Model):
    """One rule for opaque connections."""

    match: tuple[L4MatchAttributes, ...] = ()
    route: tuple[RouteDestination, ...] = ()

    def problems(self) -> Iterator[Problem]:
        yield from _needs_route(self.route)


class TLSRoute(Model):
    """One rule for TLS connections, by SNI."""

    match: tuple[TLSMatchAttributes, ...]
    route: tuple[RouteDestination, ...] = ()

    def problems(self) -> Iterator[Problem]:
        if not self.match:
            yield Problem(("match",), "must have at least one item", Code.MISSING_FIELD)
        yield from _needs_route(self.route)


class VirtualService(Model):
    """Rules for the traffic to some hosts."""

    hosts: Annotated[tuple[HostOrAddress, ...], Field(max_length=MAX_HOSTS)] = ()
    """Names and addresses that clients call. None: the rules are for a ``delegate`` of others."""
    gateways: tuple[GatewayName, ...] = ()
    """None: ``mesh``, that is all sidecars."""
    http: Annotated[tuple[HTTPRoute, ...], Field(max_length=MAX_MATCHES)] = ()
    tls: Annotated[tuple[TLSRoute, ...], Field(max_length=MAX_MATCHES)] = ()
    tcp: Annotated[tuple[TCPRoute, ...], Field(max_length=MAX_MATCHES)] = ()
    export_to: tuple[Visibility, ...] = ()
    """Namespaces whose callers it applies to. None: all."""

    def problems(self) -> Iterator[Problem]:
        if not (self.http or self.tls or self.tcp):
            yield Problem((), "must have http, tls or tcp rules", Code.MISSING_FIELD)
        yield from self._size_problems()
        yield from self._host_problems()
        yield from self._delegate_problems()
        yield from self._claim_problems()
        yield from self._sni_problems()
        yield from export_problems(self.export_to)

    @property
    def applies_to_mesh(self) -> bool:
        """Whether sidecars use it."""
        return not self.gateways or MESH_GATEWAY in self.gateways

    @property
    def _has_gateway(self) -> bool:
        return any(gateway != MESH_GATEWAY for gateway in self.gateways)

    def _size_problems(self) -> Iterator[Problem]:
        counts = {"http": sum(max(1, len(rule.match)) for rule in self.http)}
        counts["tcp"] = sum(max(1, len(rule.match)) for rule in self.tcp)
        counts["tls"] = sum(len(block.sni_hosts) for rule in self.tls for block in rule.match)
        for field, count in counts.items():
            if count > MAX_MATCHES:
                what = "server names" if field == "tls" else "matches"
                message = f"has {count} {what}; at most {MAX_MATCHES} are allowed"
                yield Problem((field,), message, Code.BAD_VALUE)

    def _host_problems(self) -> Iterator[Problem]:
        for index, host in enumerate(self.hosts):
            if host == "*" and not self._has_gateway:
                message = "is *, which only a rule bound to a gateway may say; name the hosts"
                yield Problem(("hosts", index), message, Code.BAD_VALUE)
                return
            for earlier in self.hosts[:index]:
                if names.hosts_overlap(host, earlier):
                    yield Problem(("hosts", index), f"is {host}, which {earlier} means already")

    def _delegate_problems(self) -> Iterator[Problem]:
        if self.hosts:
            return
        for field in ("gateways", "tls", "tcp"):
            if getattr(self, field):
                yield Problem((field,), "must not be given where hosts is empty")
        for index, rule in enumerate(self.http):
            if rule.delegate:
                yield Problem(("http", index, "delegate"), "must not be given where hosts is empty")

    def _claim_problems(self) -> Iterator[Problem]:
        if self._has_gateway:
            return
        for index, rule in enumerate(self.http):
            for number, match in enumerate(rule.match):
                for field, key in match.claims:
                    message = "matches a token's claim, which only rules bound to a gateway can"
                    yield Problem(("http", index, "match", number, field, key), message)

    def _sni_problems(self) -> Iterator[Problem]:
        for index, rule in enumerate(self.tls):
            for number, match in enumerate(rule.match):
                for position, sni in enumerate(match.sni_hosts):
                    if not names.is_ip(sni) and not any(names.host_covers(host, sni) for host in self.hosts):
                        path = ("tls", index, "match", number, "sniHosts", position)
                        yield Problem(path, f"is {sni}, which is in none of spec.hosts")


def _needs_route(route: tuple[RouteDestination, ...]) -> Iterator[Problem]:
    if not route:
        yield Problem(("route",), "must have at least one destination", Code.MISSING_FIELD)
    yield from weight_problems(route)


def weight_problems(route: Iterable[HTTPRouteDestination | RouteDestination]) -> Iterator[Problem]:
    """Several destinations need a positive sum of weights, which must fit Envoy's uint32."""
    weights = [each.weight for each in route]
    if len(weights) > 1 and sum(weights) == 0:
        yield Problem(("route",), "has weights whose sum is 0; it must be positive", Code.ZERO_WEIGHT)
    if sum(weights) > 2**32 - 1:
        yield Problem(("route",), "has weights whose sum is over 4294967295", Code.BAD_VALUE)
