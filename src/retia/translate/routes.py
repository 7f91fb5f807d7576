"""Route configurations and virtual hosts: what a request's ``Host`` header means.

A route configuration holds no virtual host; each comes on demand, when the first request names it. A virtual
host carries every spelling of its service's name, so that one answer serves them all; a spelling outside that
set (an unusual port, a wildcard's member) gets a virtual host of its own. A host that nobody knows gets an
answer as well, since silence would hang the request: one without a message (404), or one that passes the
request on where the mesh allows it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from envoy.config.route.v3 import route_components_pb2, route_pb2

from retia.config.codes import Code, finding
from retia.model.finding import Finding
from retia.model.ids import Host, expansions
from retia.model.mesh import Resolution, Service
from retia.model.resource import Built, Name, Provenance, TypeUrl
from retia.model.snapshot import View
from retia.policy.arrange import arrange
from retia.policy.registry import (
    Destination,
    is_hidden,
    mesh,
    resolve_address,
    resolve_name,
    service,
    spellings,
)
from retia.policy.routing import HttpRule, HttpRules, default_retry, http_rules
from retia.policy.routing.forms import Target, WeightedTarget
from retia.policy.scope import allow_any, egress_proxy
from retia.translate import pb
from retia.translate.http_filters import put_host_features
from retia.translate.listeners import find_upstream
from retia.translate.names import (
    DEFAULT_HTTP_PORT,
    EXPLICIT,
    FORWARD_PROXY,
    PASSTHROUGH,
    HostName,
    Outbound,
    Pinned,
    TcpDial,
    join_host_port,
    parse_port,
    parse_upstream,
    split_host_port,
)
from retia.translate.rules import MAX_BODY_BYTES, Scene, add_rule
from retia.translate.sources import service_provenance

VHDS_TIMEOUT_S = 0.2
"""Second net for a listener that waits for its first answer; the first is the virtual host ``<rc>/_``."""
MAX_VIRTUAL_HOST_BYTES = 2 * 1024 * 1024
"""Half of what a gRPC message holds; 5,000 ordinary rules are 1.8 MB."""


def build_route_config(view: View, name: str) -> Built:
    """The route configuration of that name; no message where no listener could refer to it."""
    if parse_upstream(name):
        return _upstream_routes(view, name)
    if not parse_port(name) and name != EXPLICIT:
        return Built(name, None)
    config = route_pb2.RouteConfiguration()
    config.name = name
    config.validate_clusters.value = False
    config.max_direct_response_body_size_bytes.value = MAX_BODY_BYTES
    source = config.vhds.config_source
    pb.from_ads(source)
    pb.duration(source.initial_fetch_timeout, VHDS_TIMEOUT_S)
    return Built(name, pb.dump(config))


def _upstream_routes(view: View, name: str) -> Built:
    """All requests at a local port are for one service; it is told its own name as the host."""
    upstream = find_upstream(view, name)
    if upstream is None:
        return Built(name, None)
    host = upstream.host if upstream.port == DEFAULT_HTTP_PORT else f"{upstream.host}:{upstream.port}"
    virtual_host = _Builder(view, Destination(upstream.host, upstream.port), host=host)
    config = route_pb2.RouteConfiguration()
    config.name = name
    config.validate_clusters.value = False
    config.max_direct_response_body_size_bytes.value = MAX_BODY_BYTES
    config.virtual_hosts.add().CopyFrom(virtual_host.build(name, ("*",)))
    return virtual_host.built(name, config, ())


def build_virtual_host(view: View, name: HostName) -> Built:
    """What a ``Host`` header means under a route configuration."""
    requested = str(name)
    if name.is_placeholder:
        return Built(requested, None, aliases=(requested,))
    port, bare, explicit_port = _parts(name)
    if not port or parse_upstream(name.route_config):
        return Built(requested, None, aliases=(requested,))
    namespace = view.proxy("namespace")
    found = resolve_name(view, bare, namespace, port)
    if found is None:
        found = resolve_address(view, bare, port) if _is_ip(bare) else None
    if found is None:
        return _unknown(view, name, bare, port)
    domains = _domains(view, found, name.route_config, namespace)
    canonical = f"{name.route_config}/{domains[0]}"
    if name.authority not in domains or explicit_port not in (0, port):
        canonical, domains = requested, (name.authority,)
    builder = _Builder(view, found, connect=name.route_config == EXPLICIT)
    message = builder.build(canonical, domains)
    aliases = tuple(f"{name.route_config}/{domain}" for domain in domains)
    return builder.built(canonical, message, aliases)


def _parts(name: HostName) -> tuple[int, str, int]:
    """The service's port, the host without its port, and the port that the header had (0: none)."""
    bare, given = split_host_port(name.authority)
    if name.route_config == EXPLICIT:
        return given or DEFAULT_HTTP_PORT, bare, given
    return parse_port(name.route_config), bare, given


def _domains(view: View, found: Destination, route_config: str, namespace: str) -> tuple[str, ...]:
    """Every ``Host`` header that means this destination, the canonical one first."""
    if found.pinned:
        ip, port = split_host_port(found.pinned)
        with_port = [found.pinned]
        plain = [ip] if route_config != EXPLICIT or port == DEFAULT_HTTP_PORT else []
        return tuple(with_port + plain)
    known = service(view, found.host)
    if known is None or known.host.startswith("*"):
        return (join_host_port(found.host, found.port),)
    names = [
        n for n in _names(view, known, namespace) if n == known.host or _is_own(view, n, namespace, found)
    ]
    if known.vip:
        names.append(known.vip)
    with_port = [join_host_port(n, found.port) for n in names]
    if route_config == EXPLICIT and found.port != DEFAULT_HTTP_PORT:
        return tuple(with_port)
    return tuple(with_port + [f"[{n}]" if ":" in n else n for n in names])


def _names(view: View, known: Service, namespace: str) -> tuple[str, ...]:
    return spellings(known.host, known.namespace, namespace, mesh(view).dns_suffix)


def _is_own(view: View, spelling: str, namespace: str, found: Destination) -> bool:
    """Whether no other service takes that spelling: two virtual hosts must never share a domain."""
    if expansions(spelling, namespace, mesh(view).dns_suffix)[0] == found.host:
        return True
    other = resolve_name(view, spelling, namespace, found.port)
    return other is not None and other.host == found.host


def _is_ip(text: str) -> bool:
    return ":" in text or text.replace(".", "").isdigit()


def _unknown(view: View, name: HostName, bare: str, port: int) -> Built:
    """A host that is no service: rules may still be for it; else it is passed on, or refused."""
    requested = str(name)
    rules = view.query(http_rules, (bare, port))
    if rules is not None and rules.rules:
        builder = _Builder(view, Destination(Host(bare), port))
        return builder.built(requested, builder.build(requested, (name.authority,)), (requested,))
    if is_hidden(view, bare, view.proxy("namespace")):
        # Its address is the mesh's own: passed on, the request would reach nobody.
        return Built(requested, None, aliases=(requested,))
    proxy = egress_proxy(view)
    if proxy is not None:
        cluster = str(Outbound(proxy[1], proxy[2], proxy[0]))
    elif allow_any(view):
        cluster = FORWARD_PROXY if name.route_config == EXPLICIT else PASSTHROUGH
    else:
        return Built(requested, None, aliases=(requested,))
    virtual_host = route_components_pb2.VirtualHost()
    virtual_host.name = requested
    virtual_host.domains.append(name.authority)
    if name.route_config == EXPLICIT:
        _add_connect(virtual_host, cluster)
    route = virtual_host.routes.add()
    route.name = "passthrough"
    route.match.prefix = "/"
    route.route.cluster = cluster
    pb.duration(route.route.timeout, 0)
    pb.duration(route.route.idle_timeout, 0)
    refs = (Name(TypeUrl.CLUSTER, cluster),)
    return Built(requested, pb.dump(virtual_host), aliases=(requested,), refs=refs)


def _add_connect(virtual_host: Any, cluster: str) -> None:
    """``CONNECT`` ends here and its bytes go on as they are."""
    route = virtual_host.routes.add()
    route.name = "connect"
    route.match.connect_matcher.SetInParent()
    route.route.cluster = cluster
    upgrade = route.route.upgrade_configs.add()
    upgrade.upgrade_type = "CONNECT"
    upgrade.connect_config.SetInParent()
    pb.duration(route.route.timeout, 0)
    pb.duration(route.route.idle_timeout, 0)


class _Builder:
    """Builds the virtual host of one destination and keeps what it refers to.

    ``host`` replaces the client's ``Host`` header (empty: as it came); ``connect`` takes ``CONNECT`` as well.
    """

    def __init__(
        self, view: View, destination: Destination, *, connect: bool = False, host: str = ""
    ) -> None:
        self.view = view
        self.destination = destination
        self.connect = connect
        self.host = host
        self.scene = Scene(view, self._cluster_of)
        self.too_large: tuple[Finding, ...] = ()
        self.rules: HttpRules | None = view.query(http_rules, (destination.host, destination.port))

    def build(self, name: str, domains: Iterable[str]) -> Any:
        virtual_host = route_components_pb2.VirtualHost()
        virtual_host.name = name
        virtual_host.domains.extend(domains)
        if self.connect:
            self._put_connect(virtual_host)
        rules = self._arranged()
        for rule in rules:
            add_rule(virtual_host, self.scene, rule, default_host=self.host)
        put_host_features(virtual_host, self.scene, rules)
        if virtual_host.ByteSize() > MAX_VIRTUAL_HOST_BYTES:
            self._refuse(virtual_host)
        return virtual_host

    def _refuse(self, virtual_host: Any) -> None:
        """Rules that no response could carry: requests get 500, and nobody else is held up."""
        size = virtual_host.ByteSize()
        del virtual_host.routes[:]
        virtual_host.typed_per_filter_config.clear()
        route = virtual_host.routes.add()
        route.name = "too-large"
        route.match.prefix = "/"
        route.direct_response.status = 500
        refs = tuple(dict.fromkeys(p.ref for p in self.rules.provenance)) if self.rules is not None else ()
        self.too_large = tuple(
            finding(
                Code.LIMIT,
                f"the rules for {self.destination.host} take {size} bytes at a proxy, which takes at most "
                f"{MAX_VIRTUAL_HOST_BYTES}; all requests to it get 500",
                ref=ref,
                field="spec.http",
                remedy="use fewer and shorter matches and bodies",
            )
            for ref in refs
        )

    def built(self, name: str, message: Any, aliases: tuple[str, ...]) -> Built:
        known = service(self.view, self.destination.host)
        provenance: tuple[Provenance, ...] = service_provenance(known) if known is not None else ()
        findings = (*self._ambiguous(), *self.too_large)
        if self.rules is not None:
            provenance += self.rules.provenance
            findings += self.rules.findings
        refs = tuple(Name(TypeUrl.CLUSTER, cluster) for cluster in sorted(self.scene.clusters))
        return Built(name, pb.dump(message), aliases, refs, (*provenance, *self.scene.provenance), findings)

    def _rules(self) -> tuple[HttpRule, ...]:
        if self.rules is not None and self.rules.rules:
            return self.rules.rules
        target = Target(self.destination.host, self.destination.port)
        return (
            HttpRule(
                field="", name="default", targets=(WeightedTarget(target),), retry=default_retry(self.view)
            ),
        )

    def _arranged(self) -> tuple[HttpRule, ...]:
        """The rules with rollouts and lanes laid over them. Who dials one endpoint means it."""
        if self.destination.pinned:
            return self._rules()
        rules, provenance = arrange(self.view, self._rules())
        self.scene.provenance.extend(provenance)
        return rules

    def _cluster_of(self, target: Target) -> str:
        """The cluster of a target. A client that dialled one endpoint of this service gets that endpoint."""
        here = self.destination
        if here.pinned and target.host == here.host and target.port == here.port:
            return str(Pinned(here.pinned, here.port, here.host))
        return str(Outbound(target.port, target.subset, target.host))

    def _put_connect(self, virtual_host: Any) -> None:
        here = self.destination
        known = service(self.view, here.host)
        if here.pinned:
            ip, port = split_host_port(here.pinned)
            cluster = str(TcpDial(ip, port))
        elif known is not None and known.vip and known.resolution is not Resolution.PASSTHROUGH:
            cluster = str(TcpDial(known.vip, here.port))
        elif known is not None and known.external and allow_any(self.view):
            cluster = FORWARD_PROXY
        else:
            cluster = str(Outbound(here.port, "", here.host))
        _add_connect(virtual_host, cluster)

    def _ambiguous(self) -> tuple[Finding, ...]:
        here = self.destination
        if not here.rivals:
            return ()
        others = ", ".join(here.rivals)
        message = f"{here.pinned} is an endpoint of {here.host} and of {others}; the rules of the former hold"
        return (finding(Code.AMBIGUOUS_ADDRESS, message, remedy="call the service by its name"),)
