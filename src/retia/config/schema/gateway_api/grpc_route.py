"""``GRPCRoute``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import Field, Strict

from retia.config import re2
from retia.config.codes import Code
from retia.config.schema.base import Model, Problem
from retia.config.schema.gateway_api.filters import GRPCFilter, filter_problems
from retia.config.schema.gateway_api.http_route import ValueMatch, ValueMatchType, route_problems
from retia.config.schema.gateway_api.types import (
    BackendRef,
    GatewayDefaultScope,
    Hostname,
    ParentReference,
    SectionName,
    SessionPersistence,
    count_problems,
    named_once,
    parent_problems,
)

_SERVICE = re.compile(r"\.?[a-z_][a-z_0-9]*(\.[a-z_][a-z_0-9]*)*", re.ASCII | re.IGNORECASE)
_METHOD = re.compile(r"[A-Za-z_][A-Za-z_0-9]*", re.ASCII)
_Text = Annotated[str, Strict(), Field(max_length=1024)]


class GRPCMethodMatch(Model):
    """A method by its service (``package.Service``) and name; at least one of both."""

    type: ValueMatchType = ValueMatchType.EXACT
    service: _Text | None = None
    method: _Text | None = None

    def problems(self) -> Iterator[Problem]:
        if not self.service and not self.method:
            yield Problem((), "must have one or both of service, method", Code.MISSING_FIELD)
        for field, value, allowed in (("service", self.service, _SERVICE), ("method", self.method, _METHOD)):
            if not value:
                continue
            if self.type is ValueMatchType.EXACT and not allowed.fullmatch(value):
                yield Problem((field,), f"is {value!r}; it must be a name in gRPC", Code.BAD_VALUE)
            if self.type is ValueMatchType.REGEX:
                try:
                    re2.check(value)
                except re2.PatternError as error:
                    message = f"is {value!r}; it must be a regular expression of RE2's syntax: {error}"
                    yield Problem((field,), message, Code.BAD_VALUE)


class GRPCRouteMatch(Model):
    method: GRPCMethodMatch | None = None
    """Absent: every method."""
    headers: tuple[ValueMatch, ...] = ()

    def problems(self) -> Iterator[Problem]:
        yield from count_problems("headers", self.headers, 16)
        yield from named_once("headers", self.headers, str.lower)


class GRPCBackendRef(BackendRef):
    filters: tuple[GRPCFilter, ...] = ()

    def problems(self) -> Iterator[Problem]:
        yield from super().problems()
        yield from filter_problems(self.filters)


class GRPCRouteRule(Model):
    name: SectionName | None = None
    matches: tuple[GRPCRouteMatch, ...] = ()
    """Empty: every method."""
    filters: tuple[GRPCFilter, ...] = ()
    backend_refs: tuple[GRPCBackendRef, ...] = ()
    session_persistence: SessionPersistence | None = None

    def problems(self) -> Iterator[Problem]:
        yield from count_problems("matches", self.matches, 64)
        yield from count_problems("backendRefs", self.backend_refs, 16)
        yield from filter_problems(self.filters)


class GRPCRoute(Model):
    """Where gRPC calls go, by method and headers."""

    parent_refs: tuple[ParentReference, ...] = ()
    use_default_gateways: GatewayDefaultScope | None = None
    hostnames: tuple[Hostname, ...] = ()
    rules: tuple[GRPCRouteRule, ...] = ()
    """Empty: the route is attached and serves nothing (UNIMPLEMENTED for each call)."""

    def problems(self) -> Iterator[Problem]:
        yield from parent_problems(self.parent_refs)
        rules: Any = self.rules
        yield from route_problems(self.hostnames, rules)
