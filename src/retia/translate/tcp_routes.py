"""Connections by rules: weights, other services, server names.

A connection that was dialled arrives at the cluster ``tcp|<ip>:<port>``. Where rules hold for that address,
the cluster leads to an *internal listener*, which Envoy connects to within itself; it alone looks at the TLS
greeting (where rules ask for server names) and splits by weight. So the outbound listeners stay as they are,
connections to other addresses pay nothing, and protocols in which the server speaks first are never waited
for. A single rule with one destination needs no listener: the cluster is that destination's.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import base_pb2
from envoy.config.listener.v3 import listener_pb2

from retia.model.resource import Built, Name, TypeUrl
from retia.model.snapshot import View
from retia.policy.registry import Destination, mesh, resolve_address, service
from retia.policy.routing.forms import Target, TcpRule, TcpRules, WeightedTarget
from retia.policy.routing.tcp import tcp_rules
from retia.policy.traffic import TrafficPolicy, traffic_policy
from retia.translate import pb
from retia.translate.chains import add_inspectors, add_weighted_tcp
from retia.translate.names import BLACK_HOLE, Opaque, Outbound, TcpDial
from retia.translate.redis import add_redis

NO_RULES = TcpRules(())
ANY_SNI = "*"


def rules_at(view: View, host: str, port: int, ip: str = "") -> TcpRules:
    """The rules for connections to a service's port; ``ip``: the address dialled, its own where empty."""
    known = service(view, host)
    return view.query(tcp_rules, (host, port, ip or (known.vip if known else ""))) or NO_RULES


def sole_target(rules: TcpRules) -> Target | None:
    """Where all connections go, where that is one destination; ``None``: to the service itself."""
    return rules.rules[0].targets[0].target if rules.rules and rules.rules[0].targets else None


def needs_listener(rules: TcpRules) -> bool:
    """Whether a single cluster can't say it."""
    return rules.redis is not None or any(rule.snis or len(rule.targets) != 1 for rule in rules.rules)


def rules_connections(view: View, target: Target) -> bool:
    """Whether a DestinationRule says something of its connections that only a proxy of their own can do: how
    long they last, or that they are tunnelled."""
    return connection_policy(view, (target,)) is not None


def connection_policy(view: View, targets: Iterable[Target]) -> TrafficPolicy | None:
    """The policy of the first target that has one which a proxy of bytes must obey."""
    for target in targets:
        policy = view.query(traffic_policy, (target.host, target.port, target.subset))
        if policy is None:
            continue
        tcp = policy.tcp
        timed = tcp.idle_timeout_s is not None or tcp.max_connection_duration_s is not None
        if timed or policy.tunnel is not None:
            return policy
    return None


def through_listener(view: View, name: TcpDial, rules: TcpRules) -> Built:
    """The cluster of a dialled address that leads to its internal listener."""
    cluster = cluster_pb2.Cluster()
    cluster.name = str(name)
    cluster.type = cluster_pb2.Cluster.STATIC
    pb.duration(cluster.connect_timeout, mesh(view).connect_timeout_s)
    limits = cluster.circuit_breakers.thresholds.add()
    limits.max_connections.value = pb.NO_LIMIT
    limits.max_pending_requests.value = pb.NO_LIMIT
    cluster.load_assignment.cluster_name = str(name)
    endpoint = cluster.load_assignment.endpoints.add().lb_endpoints.add().endpoint
    endpoint.address.envoy_internal_address.server_listener_name = name.listener
    endpoint.address.envoy_internal_address.endpoint_id = str(name)
    return Built(
        str(name),
        pb.dump(cluster),
        refs=(Name(TypeUrl.LISTENER, name.listener),),
        provenance=rules.provenance,
        findings=rules.findings,
    )


def dialled_listener(view: View, name: str, dialled: TcpDial) -> Built:
    """The internal listener of a dialled address; no message where its rules need none."""
    found = resolve_address(view, dialled.ip, dialled.port)
    if found is None or found.pinned:
        return Built(name, None)
    rules = rules_at(view, found.host, found.port, dialled.ip)
    only = sole_target(rules) or Target(found.host, found.port)
    if not needs_listener(rules) and not rules_connections(view, only):
        return Built(name, None)
    listener = listener_pb2.Listener()
    listener.name = name
    listener.traffic_direction = base_pb2.OUTBOUND
    listener.internal_listener.SetInParent()
    if any(rule.snis for rule in rules.rules):
        add_inspectors(listener, mesh(view).protocol_detection_timeout_s, http=False)
    refs = add_rule_chains(view, listener, f"outbound_{name}", found, rules)
    return Built(name, pb.dump(listener), refs=refs, provenance=rules.provenance)


def add_rule_chains(
    view: View, listener: Any, stat_prefix: str, here: Destination, rules: TcpRules
) -> tuple[Name, ...]:
    """A chain for each rule with server names, and the default chain: the first rule for every connection, or
    the service itself. Returns the clusters that they need."""
    clusters: set[str] = set()
    if rules.redis is not None:
        chain = listener.default_filter_chain if listener.filter_chains else listener.filter_chains.add()
        chain.name = "redis"
        clusters = add_redis(chain, stat_prefix, rules.redis, lambda target: _cluster(view, target))
        return tuple(Name(TypeUrl.CLUSTER, cluster) for cluster in sorted(clusters))
    for rule in rules.rules:
        if rule.snis:
            chain = listener.filter_chains.add()
            chain.name = f"{rule.ref} {rule.field}"
            chain.filter_chain_match.transport_protocol = "tls"
            if ANY_SNI not in rule.snis:
                chain.filter_chain_match.server_names.extend(rule.snis)
            clusters |= add_targets(view, chain, stat_prefix, rule.targets)
    rest = next((rule for rule in rules.rules if not rule.snis), None)
    if rest is None:
        rest = TcpRule("", (WeightedTarget(Target(here.host, here.port)),))
    # A listener whose one chain has no condition needs no default.
    chain = listener.default_filter_chain if listener.filter_chains else listener.filter_chains.add()
    chain.name = f"{rest.ref} {rest.field}" if rest.ref is not None else "tcp"
    clusters |= add_targets(view, chain, stat_prefix, rest.targets)
    return tuple(Name(TypeUrl.CLUSTER, cluster) for cluster in sorted(clusters))


def add_targets(view: View, chain: Any, stat_prefix: str, targets: tuple[WeightedTarget, ...]) -> set[str]:
    """Fill a chain: bytes to the targets by their weights. Returns the clusters that it needs."""
    shares: dict[str, int] = {}
    for each in targets:
        cluster = _cluster(view, each.target)
        shares[cluster] = shares.get(cluster, 0) + each.weight
    policy = connection_policy(view, (each.target for each in targets))
    add_weighted_tcp(chain, view, stat_prefix, shares or {BLACK_HOLE: 1}, policy)
    return set(shares)


def _cluster(view: View, target: Target) -> str:
    """The cluster of a target. Bytes to an HTTP port need one of their own, that doesn't promise HTTP."""
    known = service(view, target.host)
    port = known.port(target.port) if known is not None else None
    if port is not None and port.protocol.is_http:
        return str(Opaque(target.port, target.subset, target.host))
    return str(Outbound(target.port, target.subset, target.host))
