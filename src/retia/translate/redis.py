"""Commands of Redis, sent on by their keys: Envoy's Redis proxy instead of one that passes bytes.

It speaks Redis to both sides. Commands that concern several keys are split; transactions across destinations
and commands that Envoy doesn't know are answered with an error (Envoy, "Redis", supported commands).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from envoy.extensions.filters.network.redis_proxy.v3 import redis_proxy_pb2

from retia.policy.routing.forms import RedisKeys, RedisRules, Target
from retia.translate import pb

REDIS_PROXY = "envoy.filters.network.redis_proxy"


def add_redis(
    chain: Any, stat_prefix: str, rules: RedisRules, cluster_of: Callable[[Target], str]
) -> set[str]:
    """Fill a chain; returns the clusters that it needs."""
    clusters: set[str] = set()

    def named(target: Target) -> str:
        cluster = cluster_of(target)
        clusters.add(cluster)
        return cluster

    proxy = redis_proxy_pb2.RedisProxy()
    proxy.stat_prefix = stat_prefix
    pb.duration(proxy.settings.op_timeout, rules.timeout_s)
    proxy.settings.enable_command_stats = True
    proxy.prefix_routes.case_insensitive = rules.case_insensitive
    for keys in rules.keys:
        route = proxy.prefix_routes.routes.add() if keys.prefix else proxy.prefix_routes.catch_all_route
        _put_route(route, keys, named)
    network = chain.filters.add()
    network.name = REDIS_PROXY
    pb.pack(network.typed_config, proxy)
    return clusters


def _put_route(route: Any, keys: RedisKeys, named: Callable[[Target], str]) -> None:
    route.prefix = keys.prefix
    route.remove_prefix = keys.remove_prefix
    route.cluster = named(keys.target)
    if keys.read_from is not None:
        route.read_command_policy.cluster = named(keys.read_from)
    for mirror in keys.mirrors:
        policy = route.request_mirror_policy.add()
        policy.cluster = named(mirror.target)
        policy.exclude_read_commands = mirror.exclude_reads
        pb.millionths(policy.runtime_fraction.default_value, mirror.share)
