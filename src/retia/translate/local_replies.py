"""What a proxy adds to the responses that it makes itself, and to no other: why it did.

``Proxy-Status`` (RFC 9209) comes from Envoy, by its response flags; ``retia-code`` from a mapper for each
code of :mod:`retia.config.replies`. A mapper is looked at when a local reply is made, so that responses of
services cost nothing. It costs memory in each connection manager, though, and a sidecar has one for each port
number that any service declares: 0.4 KB by flags, 1.3 to 2 KB more for each condition on the response code
details, which take CEL, and 0.3 MB for CEL at all (measured). So the details are asked only where a filter
is in the chain that sets no flag, or sets it after the mappers were asked (a local rate limit). What isn't
HTTP has no headers by then. A redirect or a direct response that a rule asks for has neither flag nor such
details and stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

from envoy.extensions.access_loggers.filters.cel.v3 import cel_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2

from retia.config.replies import HEADER, REPLIES, Reply
from retia.translate import pb

_CEL = "envoy.access_loggers.extension_filters.cel"
_REPLACE = 2
"""``HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD``."""


def put(manager: Any, *, details: bool = True) -> None:
    """Give a connection manager the headers of its local replies. ``details``: with what Envoy knows of the
    failure, addresses inside the mesh among it; without for those who are not of the mesh."""
    manager.MergeFromString(_settings(details))


def put_for(manager: Any, filters: Iterable[str]) -> None:
    """Add the headers of local replies that these HTTP filters make, by name, and that no flag tells."""
    names = tuple(filters)
    for reply in REPLIES.values():
        if reply.filters and any(name.startswith(reply.filters) for name in names):
            _add_by_details(manager.local_reply_config, reply)


@cache
def _settings(details: bool) -> bytes:
    """The same for every connection manager, so it is made once."""
    manager = http_connection_manager_pb2.HttpConnectionManager()
    manager.proxy_status_config.use_node_id = details
    if not details:
        manager.proxy_status_config.literal_proxy_name = "retia"
        manager.proxy_status_config.remove_details = True
    for reply in REPLIES.values():
        if reply.flags and not reply.within:
            mapper = _add_mapper(manager.local_reply_config, reply)
            mapper.filter.response_flag_filter.flags.extend(reply.flags)
        if reply.lacks:
            _add_by_absence(manager.local_reply_config, reply)
    return pb.dump(manager)


def _add_mapper(config: Any, reply: Reply) -> Any:
    mapper = config.mappers.add()
    _add_header(mapper, HEADER, reply.code)
    return mapper


def _add_by_absence(config: Any, reply: Reply) -> None:
    mapper = _add_mapper(config, reply)
    for name in reply.lacks:
        header = mapper.filter.or_filter.filters.add().header_filter.header
        header.name = name
        header.present_match = False
    _add_status(mapper, reply)


def _add_by_details(config: Any, reply: Reply) -> None:
    mapper = _add_mapper(config, reply)
    expression = cel_pb2.ExpressionFilter()
    expression.expression = " || ".join(
        f"response.code_details.startsWith('{start}')" for start in reply.details
    )
    mapper.filter.extension_filter.name = _CEL
    pb.pack(mapper.filter.extension_filter.typed_config, expression)
    _add_status(mapper, reply)


def _add_status(mapper: Any, reply: Reply) -> None:
    if reply.error:
        _add_header(mapper, "proxy-status", f'retia; error={reply.error}; details="{reply.code}"')


def _add_header(mapper: Any, key: str, value: str) -> None:
    option = mapper.headers_to_add.add()
    option.header.key = key
    option.header.value = value
    option.append_action = _REPLACE
