"""What the forward proxy's cluster and its HTTP filter must say alike: the cache of looked-up names."""

from __future__ import annotations

from typing import Any

from envoy.config.cluster.v3 import cluster_pb2

MAX_HOSTS = 1024
"""Names kept at once; Envoy's default."""


def put_dns_cache(config: Any) -> None:
    """Fill the cache's configuration."""
    config.name = "forward-proxy"
    config.dns_lookup_family = cluster_pb2.Cluster.V4_PREFERRED
    config.max_hosts.value = MAX_HOSTS
