"""The entry: one resource by its name.

:func:`build` is a pure function of what it reads through the view; who holds results, and when they are
computed again, is no matter of this package. Every name gets an answer: what doesn't exist is a result
without a message.
"""

from __future__ import annotations

from retia.model.mesh import ProxyKind
from retia.model.resource import Built, Name, TypeUrl
from retia.model.snapshot import View
from retia.policy.indexes import uses
from retia.translate.clusters import build_cluster
from retia.translate.edge import build_edge_routes, passes_names
from retia.translate.endpoints import build_endpoints
from retia.translate.listeners import build_listener, listener_names
from retia.translate.names import (
    EXPLICIT,
    ByServerName,
    InboundPort,
    parse_cluster,
    parse_virtual_host,
    placeholder,
)
from retia.translate.patches import added_names, patched
from retia.translate.routes import build_route_config, build_virtual_host
from retia.translate.secrets import build_secret


def build(view: View, name: Name) -> Built:
    """The resource of that type and name as this proxy gets it."""
    built = _build(view, name)
    return patched(view, name, built) if uses(view, "patches") else built


def _build(view: View, name: Name) -> Built:
    match name.type:
        case TypeUrl.LISTENER:
            return build_listener(view, name.name)
        case TypeUrl.ROUTE if view.proxy("kind") is ProxyKind.GATEWAY:
            return build_edge_routes(view, name.name)
        case TypeUrl.ROUTE:
            return build_route_config(view, name.name)
        case TypeUrl.VIRTUAL_HOST:
            host = parse_virtual_host(name.name)
            return build_virtual_host(view, host) if host else _absent(name)
        case TypeUrl.CLUSTER | TypeUrl.ENDPOINTS:
            return _destination(view, name)
        case TypeUrl.SECRET:
            return build_secret(view, name.name)
        case _:
            return _absent(name)


def listed(view: View, type_url: TypeUrl) -> tuple[str, ...]:
    """The names of a type that this proxy gets without asking for each: what a wildcard means."""
    names = _listed(view, type_url)
    if not uses(view, "patches"):
        return names
    return tuple(sorted({*names, *added_names(view, type_url)}))


def _listed(view: View, type_url: TypeUrl) -> tuple[str, ...]:
    match type_url:
        case TypeUrl.LISTENER:
            return listener_names(view)
        case TypeUrl.CLUSTER:
            return inbound_cluster_names(view)
        case TypeUrl.VIRTUAL_HOST:
            return tuple(placeholder(name) for name in discovered_route_configs(view))
        case _:
            return ()


def discovered_route_configs(view: View) -> tuple[str, ...]:
    """The route configurations of this proxy whose virtual hosts come on demand."""
    if view.proxy("kind") is not ProxyKind.SIDECAR:
        return ()
    ports: set[int] = set()
    if view.proxy("outbound_http_port"):
        ports.update(view.index("http-ports", ""))
    if view.proxy("outbound_auto_port"):
        ports.update(view.index("auto-ports", ""))
    names = [str(port) for port in sorted(ports)]
    return (*names, EXPLICIT) if view.proxy("explicit_port") else tuple(names)


def inbound_cluster_names(view: View) -> tuple[str, ...]:
    """The clusters of the application's own ports: the inbound listener can't wait for them."""
    if not view.proxy("inbound_address"):
        return ()
    return tuple(str(InboundPort(number)) for number in sorted(p.number for p in view.proxy("ports")))


def _destination(view: View, name: Name) -> Built:
    """Clusters and endpoints. A host gateway's names come off the wire: it gets destinations of its host by
    server name and nothing else, or a stranger could name any address to be connected to."""
    parsed = parse_cluster(name.name)
    if parsed is None or str(parsed) != name.name:
        return _absent(name)
    if isinstance(parsed, ByServerName):
        allowed = _passes_through(view)
    else:
        allowed = view.proxy("kind") is not ProxyKind.HOST_GATEWAY
    if not allowed:
        return _absent(name)
    return (build_cluster if name.type is TypeUrl.CLUSTER else build_endpoints)(view, parsed)


def _passes_through(view: View) -> bool:
    """Whether callers may name a destination of the mesh by the server name of TLS that is passed on."""
    kind = view.proxy("kind")
    return kind is ProxyKind.HOST_GATEWAY or (kind is ProxyKind.GATEWAY and view.query(passes_names, ""))


def _absent(name: Name) -> Built:
    return Built(name.name, None, aliases=(name.name,))
