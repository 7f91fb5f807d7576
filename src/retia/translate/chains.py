"""Parts that listeners are made of: the shell, its inspectors, chains that pass bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from envoy.config.core.v3 import base_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.extensions.filters.listener.http_inspector.v3 import http_inspector_pb2
from envoy.extensions.filters.listener.original_dst.v3 import original_dst_pb2
from envoy.extensions.filters.listener.tls_inspector.v3 import tls_inspector_pb2
from envoy.extensions.filters.network.set_filter_state.v3 import set_filter_state_pb2
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2

from retia.model.snapshot import View
from retia.policy.traffic import TrafficPolicy
from retia.translate import access_log, pb
from retia.translate.http_filters import ON_DEMAND_TIMEOUT_S
from retia.translate.names import BLACK_HOLE

TCP_PROXY = "envoy.filters.network.tcp_proxy"
SET_FILTER_STATE = "envoy.filters.network.set_filter_state"
TLS_INSPECTOR = "envoy.filters.listener.tls_inspector"
HTTP_INSPECTOR = "envoy.filters.listener.http_inspector"
ORIGINAL_DST = "envoy.filters.listener.original_dst"
CLUSTER_STATE = "envoy.tcp_proxy.cluster"
TCP_CONNECT_ATTEMPTS = 3
"""Endpoints tried for one connection, so that one that has just gone isn't noticed. Arbitrary."""

_ORIGINAL_DST = pb.packed(original_dst_pb2.OriginalDst())
_TLS_INSPECTOR = pb.packed(tls_inspector_pb2.TlsInspector())
_HTTP_INSPECTOR = pb.packed(http_inspector_pb2.HttpInspector())


def new_listener(name: str, address: str, port: int, *, inbound: bool = False) -> Any:
    listener = listener_pb2.Listener()
    listener.name = name
    listener.traffic_direction = base_pb2.INBOUND if inbound else base_pb2.OUTBOUND
    pb.socket_address(listener.address, address, port)
    return listener


def add_original_destination(listener: Any) -> None:
    """Ask where a captured connection was bound, for chains that match its port."""
    add_listener_filter(listener, ORIGINAL_DST, _ORIGINAL_DST)


def add_inspectors(listener: Any, timeout_s: float, *, http: bool = True) -> None:
    """Look at the first bytes; a client that says nothing in time goes on as opaque TCP."""
    add_listener_filter(listener, TLS_INSPECTOR, _TLS_INSPECTOR)
    if http:
        add_listener_filter(listener, HTTP_INSPECTOR, _HTTP_INSPECTOR)
    pb.duration(listener.listener_filters_timeout, timeout_s)
    listener.continue_on_listener_filters_timeout = True


def add_listener_filter(listener: Any, name: str, parts: tuple[str, bytes]) -> None:
    listener_filter = listener.listener_filters.add()
    listener_filter.name = name
    pb.put(listener_filter.typed_config, parts)


def add_dialled_tcp(chain: Any, view: View, stat_prefix: str) -> None:
    """Bytes to the cluster that is named by the address that the client dialled."""
    state = set_filter_state_pb2.Config()
    value = state.on_new_connection.add()
    value.object_key = CLUSTER_STATE
    value.format_string.text_format_source.inline_string = "tcp|%DOWNSTREAM_LOCAL_ADDRESS%"
    network = chain.filters.add()
    network.name = SET_FILTER_STATE
    pb.pack(network.typed_config, state)
    add_tcp(chain, view, stat_prefix, BLACK_HOLE, on_demand=True)


def add_tcp(chain: Any, view: View, stat_prefix: str, cluster: str, *, on_demand: bool) -> None:
    """Bytes to a cluster."""
    proxy = _tcp_proxy(view, stat_prefix, on_demand=on_demand)
    proxy.cluster = cluster
    _add_proxy(chain, proxy)


def add_weighted_tcp(
    chain: Any,
    view: View,
    stat_prefix: str,
    shares: Mapping[str, int],
    policy: TrafficPolicy | None = None,
) -> None:
    """Bytes to one of several clusters, a connection at a time, by their weights. ``policy``: the times and
    the tunnel that a rule gives connections."""
    proxy = _tcp_proxy(view, stat_prefix, on_demand=True)
    if policy is not None:
        _put_connection_rules(proxy, policy)
    if len(shares) == 1:
        proxy.cluster = next(iter(shares))
    else:
        for cluster, weight in sorted(shares.items()):
            entry = proxy.weighted_clusters.clusters.add()
            entry.name = cluster
            entry.weight = weight
    _add_proxy(chain, proxy)


def _tcp_proxy(view: View, stat_prefix: str, *, on_demand: bool) -> Any:
    proxy = tcp_proxy_pb2.TcpProxy()
    access_log.put(proxy, view)
    proxy.stat_prefix = stat_prefix
    if on_demand:
        pb.from_ads(proxy.on_demand.odcds_config)
        pb.duration(proxy.on_demand.timeout, ON_DEMAND_TIMEOUT_S)
        proxy.max_connect_attempts.value = TCP_CONNECT_ATTEMPTS
    return proxy


def _put_connection_rules(proxy: Any, policy: TrafficPolicy) -> None:
    if policy.tcp.idle_timeout_s is not None:
        pb.duration(proxy.idle_timeout, policy.tcp.idle_timeout_s)
    if policy.tcp.max_connection_duration_s is not None:
        pb.duration(proxy.max_downstream_connection_duration, policy.tcp.max_connection_duration_s)
    if policy.tunnel is not None:
        host = f"[{policy.tunnel.host}]" if ":" in policy.tunnel.host else policy.tunnel.host
        proxy.tunneling_config.hostname = f"{host}:{policy.tunnel.port}"
        proxy.tunneling_config.use_post = policy.tunnel.post


def _add_proxy(chain: Any, proxy: Any) -> None:
    network = chain.filters.add()
    network.name = TCP_PROXY
    pb.pack(network.typed_config, proxy)


def tls_inspector_parts() -> tuple[str, tuple[str, bytes]]:
    """The inspector alone, for listeners with a rule of their own for who says nothing."""
    return TLS_INSPECTOR, _TLS_INSPECTOR
