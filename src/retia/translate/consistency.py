"""Whether everything that a proxy is told refers to something that exists.

A reference to nothing is either said in a finding of the resource that has it (a rule that names a missing
subset), or a mistake of ours. Two more mistakes would make Envoy refuse a whole response: a virtual host
whose name isn't its resource's, and two virtual hosts of one route configuration that share a domain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_components_pb2, route_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2

from retia.model.resource import Built, Name, TypeUrl
from retia.translate.chains import TCP_PROXY
from retia.translate.hcm import HCM
from retia.translate.names import BLACK_HOLE, parse_virtual_host

Get = Callable[[Name], Built]


def problems(get: Get, roots: Iterable[Name]) -> tuple[str, ...]:
    """What is wrong with all that can be reached from ``roots``; empty: consistent.

    ``get`` answers for every name, as :func:`retia.translate.translate.build` does for one proxy.
    """
    found: list[str] = []
    domains: dict[tuple[str, str], str] = {}
    queue, seen = list(roots), set()
    while queue:
        name = queue.pop()
        if name in seen:
            continue
        seen.add(name)
        built = get(name)
        if built.message is None:
            continue
        if name.type is TypeUrl.VIRTUAL_HOST:
            found += _virtual_host_problems(built, domains)
        for target in _references(name.type, built.message):
            queue.append(target)
            if get(target).message is None and not built.findings:
                found.append(f"{name} refers to {target}, which doesn't exist")
        queue += [ref for ref in built.refs if ref not in seen]
    return tuple(sorted(found))


def _virtual_host_problems(built: Built, domains: dict[tuple[str, str], str]) -> Iterator[str]:
    message = route_components_pb2.VirtualHost.FromString(built.message)
    parsed = parse_virtual_host(built.name)
    route_config = parsed.route_config if parsed is not None else ""
    if message.name != built.name:
        yield f"VHDS {built.name} is called {message.name} inside"
    for domain in message.domains:
        other = domains.setdefault((route_config, domain), built.name)
        if other != built.name:
            yield f"VHDS {built.name} and {other} share the domain {domain}"
        if f"{route_config}/{domain}" not in built.aliases:
            yield f"VHDS {built.name} lacks the alias of its domain {domain}"


def _references(type_url: TypeUrl, message: bytes) -> tuple[Name, ...]:
    """The names in a message that must exist for it to work."""
    match type_url:
        case TypeUrl.LISTENER:
            return tuple(_in_listener(listener_pb2.Listener.FromString(message)))
        case TypeUrl.ROUTE:
            config = route_pb2.RouteConfiguration.FromString(message)
            hosts = config.virtual_hosts
            return tuple(_cluster(c) for host in hosts for c in clusters_of(host))
        case TypeUrl.VIRTUAL_HOST:
            host = route_components_pb2.VirtualHost.FromString(message)
            return tuple(_cluster(c) for c in clusters_of(host))
        case TypeUrl.CLUSTER:
            cluster = cluster_pb2.Cluster.FromString(message)
            if cluster.type != cluster_pb2.Cluster.EDS:
                return ()
            return (Name(TypeUrl.ENDPOINTS, cluster.eds_cluster_config.service_name or cluster.name),)
        case _:
            return ()


def clusters_of(virtual_host: Any) -> tuple[str, ...]:
    """The clusters that a virtual host's routes name, sorted."""
    found: set[str] = set()
    for route in virtual_host.routes:
        action = route.route
        if action.cluster:
            found.add(action.cluster)
        found.update(weighted.name for weighted in action.weighted_clusters.clusters)
        found.update(mirror.cluster for mirror in action.request_mirror_policies)
    return tuple(sorted(found))


def _in_listener(listener: Any) -> Iterator[Name]:
    chains = list(listener.filter_chains)
    if listener.HasField("default_filter_chain"):
        chains.append(listener.default_filter_chain)
    for chain in chains:
        for network in chain.filters:
            if network.name == HCM:
                manager = http_connection_manager_pb2.HttpConnectionManager()
                network.typed_config.Unpack(manager)
                if manager.HasField("rds"):
                    yield Name(TypeUrl.ROUTE, manager.rds.route_config_name)
                for host in manager.route_config.virtual_hosts:
                    yield from (_cluster(c) for c in clusters_of(host))
            elif network.name == TCP_PROXY:
                proxy = tcp_proxy_pb2.TcpProxy()
                network.typed_config.Unpack(proxy)
                if proxy.cluster != BLACK_HOLE:
                    yield _cluster(proxy.cluster)


def _cluster(name: str) -> Name:
    return Name(TypeUrl.CLUSTER, name)
