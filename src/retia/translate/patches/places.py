"""Where in a list of filters or routes an added item goes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from retia.config.schema.envoy_filter import FilterClass, Operation
from retia.policy.patches import Change

_AUTHORIZATION = ("envoy.filters.http.rbac", "envoy.filters.network.rbac")
_AUTHENTICATION = ("envoy.filters.http.jwt_authn", "istio_authn")


def position(change: Change, items: Any, is_it: Callable[[Any], bool], *, matched: bool) -> int | None:
    """Where an added item goes; ``None``: nowhere, since what it refers to isn't there."""
    operation = change.patch.patch.operation
    if operation is Operation.ADD:
        return _added_at(change.patch.patch.filter_class, items)
    if operation is Operation.INSERT_FIRST or (operation is Operation.INSERT_BEFORE and not matched):
        return 0
    if operation is Operation.INSERT_AFTER and not matched:
        return len(items)
    found = next((index for index, item in enumerate(items) if is_it(item)), None)
    if found is None:
        return None
    return found + 1 if operation is Operation.INSERT_AFTER else found


def _added_at(place: FilterClass, items: Any) -> int:
    """The end; for a filter's class: after those that authenticate, after those that authorize, before the
    router."""
    names = [getattr(item, "name", "") for item in items]
    last = len(names) - 1 if names and names[-1] == "envoy.filters.http.router" else len(names)
    match place:
        case FilterClass.AUTHN:
            return _before_or(names, _AUTHORIZATION, last)
        case FilterClass.AUTHZ:
            after = [i for i, name in enumerate(names) if name in (*_AUTHENTICATION, *_AUTHORIZATION)]
            return after[-1] + 1 if after else 0
        case FilterClass.STATS:
            return last
        case _:
            return len(names)


def _before_or(names: list[str], those: tuple[str, ...], otherwise: int) -> int:
    return next((index for index, name in enumerate(names) if name in those), otherwise)
