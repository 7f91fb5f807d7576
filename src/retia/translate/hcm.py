"""The HTTP connection manager: one place for the settings of every HTTP filter chain.

Trimmed, because each of these costs on every request and nobody asked for it (measured: 11 % busy, 7 % idle):
no request ids, no Envoy headers, no per-request router statistics, the server's own name. Every filter in a
chain is there because an object asked for it; on demand discovery is what the chain itself is made of.
"""

from __future__ import annotations

from typing import Any

from envoy.extensions.filters.http.dynamic_forward_proxy.v3 import dynamic_forward_proxy_pb2
from envoy.extensions.filters.http.fault.v3 import fault_pb2
from envoy.extensions.filters.http.on_demand.v3 import on_demand_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2

from retia.translate import pb
from retia.translate.forward_proxy import put_dns_cache

HCM = "envoy.filters.network.http_connection_manager"
FAULT = "envoy.filters.http.fault"
ON_DEMAND = "envoy.filters.http.on_demand"
ROUTER = "envoy.filters.http.router"
FORWARD = "envoy.filters.http.dynamic_forward_proxy"

ON_DEMAND_TIMEOUT_S = 5.0
"""How long a request waits for a cluster that is being asked for; then 503. Envoy's own default."""
HANGING_REQUEST_S = 6.0
"""Bounds the wait for a virtual host, which has no limit of its own; every route that is delivered sets its
own idle timeout, so that slow answers live."""

_HTTP = http_connection_manager_pb2.HttpConnectionManager


def _router() -> tuple[str, bytes]:
    router = router_pb2.Router()
    router.suppress_envoy_headers = True
    router.dynamic_stats.value = False
    return pb.packed(router)


def _on_demand() -> tuple[str, bytes]:
    config = on_demand_pb2.OnDemand()
    pb.from_ads(config.odcds.source)
    pb.duration(config.odcds.timeout, ON_DEMAND_TIMEOUT_S)
    return pb.packed(config)


_ROUTER = _router()
_ON_DEMAND = _on_demand()
_FAULT = pb.packed(fault_pb2.HTTPFault())


def new_manager(stat_prefix: str) -> Any:
    """A connection manager with the settings that all have in common, without routes and filters."""
    manager = http_connection_manager_pb2.HttpConnectionManager()
    manager.stat_prefix = stat_prefix
    manager.codec_type = _HTTP.AUTO
    manager.server_header_transformation = _HTTP.PASS_THROUGH
    manager.generate_request_id.value = False
    manager.use_remote_address.value = False
    manager.http_protocol_options.accept_http_10 = True
    manager.normalize_path.value = True
    manager.upgrade_configs.add().upgrade_type = "websocket"
    # Over HTTP/2 an upgrade is an extended CONNECT (RFC 8441).
    manager.http2_protocol_options.allow_connect = True
    return manager


def put_discovered_routes(manager: Any, route_config: str) -> None:
    """Routes by RDS; a request without one waits a bounded time."""
    manager.rds.route_config_name = route_config
    pb.from_ads(manager.rds.config_source)
    pb.duration(manager.stream_idle_timeout, HANGING_REQUEST_S)


def put_filters(manager: Any, *, on_demand: bool, faults: bool = False, forward_proxy: bool = False) -> None:
    """The chain of HTTP filters, in the order in which a request meets them."""
    if on_demand:
        _add(manager, ON_DEMAND, _ON_DEMAND)
    if faults:
        _add(manager, FAULT, _FAULT)
    if forward_proxy:
        _add(manager, FORWARD, _forward_proxy())
    _add(manager, ROUTER, _ROUTER)


def add_to(chain: Any, manager: Any) -> None:
    """Put the manager into a filter chain."""
    network = chain.filters.add()
    network.name = HCM
    pb.pack(network.typed_config, manager)


def _add(manager: Any, name: str, parts: tuple[str, bytes]) -> None:
    http_filter = manager.http_filters.add()
    http_filter.name = name
    pb.put(http_filter.typed_config, parts)


def _forward_proxy() -> tuple[str, bytes]:
    config = dynamic_forward_proxy_pb2.FilterConfig()
    put_dns_cache(config.dns_cache_config)
    return pb.packed(config)
