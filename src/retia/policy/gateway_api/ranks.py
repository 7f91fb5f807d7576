"""The order in which matches of all routes are tried: the specification's precedence.

An ``Exact`` path comes first, then a ``RegularExpression`` (the longer first; the specification leaves their
place open), then a ``PathPrefix`` by its length; then a method; then the numbers of headers and of query
parameters; then the older route, the name, and the order in which they were written.
"""

from __future__ import annotations

from typing import Any

from retia.config.schema.gateway_api.http_route import PathMatchType, ValueMatchType
from retia.model.objects import ConfigObject

Rank = tuple[Any, ...]
"""Smaller is tried first."""

_PLACE = {PathMatchType.EXACT: 0, PathMatchType.REGEX: 1, PathMatchType.PREFIX: 2}


def of_http(route: ConfigObject, rule: int, index: int, match: Any) -> Rank:
    path = match.path
    length = len(path.value.rstrip("/")) if path.type is PathMatchType.PREFIX else len(path.value)
    return (
        _PLACE[path.type],
        -length,
        match.method is None,
        -len(match.headers),
        -len(match.query_params),
        *route.order,
        rule,
        index,
    )


def of_grpc(route: ConfigObject, rule: int, index: int, match: Any) -> Rank:
    """By the characters of the service and of the method; exact names before expressions."""
    method = match.method
    service = len(method.service or "") if method is not None else 0
    name = len(method.method or "") if method is not None else 0
    exact = method is not None and method.type is ValueMatchType.EXACT
    place = 2 if method is None else 0 if exact else 1
    return (place, -service, -name, -len(match.headers), 0, *route.order, rule, index)
