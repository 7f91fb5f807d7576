"""The HTTP connection manager: one place for the settings of every HTTP filter chain.

Trimmed, because each of these costs on every request and nobody asked for it (measured: 11 % busy, 7 % idle):
no request ids, no Envoy headers, no per-request router statistics, the server's own name. Which filters a
chain has is the business of :mod:`retia.translate.http_filters`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2

from retia.model.snapshot import View
from retia.translate import access_log, local_replies, pb
from retia.translate.http_filters import HttpFilter

HCM = "envoy.filters.network.http_connection_manager"
HANGING_REQUEST_S = 6.0
"""Bounds the wait for a virtual host, which has no limit of its own; every route that is delivered sets its
own idle timeout, so that slow answers live."""

_HTTP = http_connection_manager_pb2.HttpConnectionManager


def new_manager(stat_prefix: str, *, outside: bool = False) -> Any:
    """A connection manager with the settings that all have in common, without routes and filters.
    ``outside``: clients aren't of the mesh, so its own responses name no address within."""
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
    local_replies.put(manager, details=not outside)
    return manager


def put_discovered_routes(manager: Any, route_config: str) -> None:
    """Routes by RDS; a request without one waits a bounded time."""
    manager.rds.route_config_name = route_config
    pb.from_ads(manager.rds.config_source)
    pb.duration(manager.stream_idle_timeout, HANGING_REQUEST_S)


def put_filters(manager: Any, filters: Iterable[HttpFilter]) -> None:
    """The chain of HTTP filters, as :func:`~retia.translate.http_filters.chain_filters` gives it."""
    chain = tuple(filters)
    for each in chain:
        http_filter = manager.http_filters.add()
        http_filter.name = each.name
        http_filter.disabled = each.disabled
        pb.put(http_filter.typed_config, each.config)
    local_replies.put_for(manager, (each.name for each in chain))


def add_to(chain: Any, manager: Any, view: View) -> None:
    """Put the manager into a filter chain, with the mesh's access log."""
    access_log.put(manager, view)
    network = chain.filters.add()
    network.name = HCM
    pb.pack(network.typed_config, manager)
