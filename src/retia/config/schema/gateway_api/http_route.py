"""``HTTPRoute``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated

from pydantic import Field, Strict

from retia.config import re2
from retia.config.codes import Code
from retia.config.schema.base import Model, Problem
from retia.config.schema.gateway_api.filters import METHODS, HTTPFilter, filter_problems, prefix_modifiers
from retia.config.schema.gateway_api.types import (
    BackendRef,
    GatewayDefaultScope,
    GatewayDuration,
    HeaderName,
    Hostname,
    ParentReference,
    SectionName,
    SessionPersistence,
    count_problems,
    named_once,
    parent_problems,
)
from retia.config.schema.types import duplicates

MAX_MATCHES = 128
"""Of all rules of a route together."""
_PATH = re.compile(r"(?:[-A-Za-z0-9/._~!$&'()*+,;=:@]|[%][0-9a-fA-F]{2})+", re.ASCII)
_FORBIDDEN = ("//", "/./", "/../", "%2f", "%2F", "#")


class PathMatchType(StrEnum):
    EXACT = "Exact"
    PREFIX = "PathPrefix"
    REGEX = "RegularExpression"


class ValueMatchType(StrEnum):
    EXACT = "Exact"
    REGEX = "RegularExpression"


class PathMatch(Model):
    type: PathMatchType = PathMatchType.PREFIX
    """``PathPrefix`` compares whole segments: ``/ab`` is no prefix of ``/abc``."""
    value: Annotated[str, Strict(), Field(max_length=1024)] = "/"

    def problems(self) -> Iterator[Problem]:
        if self.type is PathMatchType.REGEX:
            yield from regex_problems(self.value)
            return
        if not self.value.startswith("/"):
            yield Problem(("value",), f"is {self.value!r}; it must start with /", Code.BAD_VALUE)
            return
        wrong = [part for part in _FORBIDDEN if part in self.value]
        wrong += [end for end in ("/..", "/.") if self.value.endswith(end)]
        if wrong or not _PATH.fullmatch(self.value):
            what = f"must not hold {wrong[0]}" if wrong else "must be an absolute path of valid characters"
            yield Problem(("value",), f"is {self.value!r}; it {what}", Code.BAD_VALUE)


class ValueMatch(Model):
    """A header or query parameter and its value."""

    type: ValueMatchType = ValueMatchType.EXACT
    name: HeaderName
    value: Annotated[str, Strict(), Field(min_length=1, max_length=4096)]

    def problems(self) -> Iterator[Problem]:
        if self.type is ValueMatchType.REGEX:
            yield from regex_problems(self.value)


def regex_problems(expression: str) -> Iterator[Problem]:
    try:
        re2.check(expression)
    except re2.PatternError as error:
        message = f"is {expression!r}; it must be a regular expression of RE2's syntax: {error}"
        yield Problem(("value",), message, Code.BAD_VALUE)


class HTTPRouteMatch(Model):
    """All of it must hold."""

    path: PathMatch = PathMatch()
    headers: tuple[ValueMatch, ...] = ()
    query_params: tuple[ValueMatch, ...] = ()
    method: Annotated[str, Strict()] | None = None

    def problems(self) -> Iterator[Problem]:
        yield from count_problems("headers", self.headers, 16)
        yield from count_problems("queryParams", self.query_params, 16)
        yield from named_once("headers", self.headers, str.lower)
        yield from named_once("queryParams", self.query_params)
        if self.method is not None and self.method not in METHODS:
            message = f"is {self.method}; it must be one of {', '.join(METHODS)}"
            yield Problem(("method",), message, Code.BAD_VALUE)


class HTTPBackendRef(BackendRef):
    filters: tuple[HTTPFilter, ...] = ()
    """For requests to this backend only."""

    def problems(self) -> Iterator[Problem]:
        yield from super().problems()
        yield from filter_problems(self.filters)


class HTTPRouteTimeouts(Model):
    request: GatewayDuration | None = None
    """For a request with all its retries; 0s: none."""
    backend_request: GatewayDuration | None = None
    """For one attempt; 0s: none."""

    def problems(self) -> Iterator[Problem]:
        if self.request and self.backend_request and self.backend_request > self.request:
            yield Problem(("backendRequest",), "must not be longer than request", Code.BAD_VALUE)


class HTTPRouteRetry(Model):
    codes: tuple[Annotated[int, Strict(), Field(ge=400, le=599)], ...] = ()
    """Statuses that are tried again, besides failures of the connection."""
    attempts: Annotated[int, Strict(), Field(ge=1, le=2**31 - 1)] | None = None
    """Beyond the first; absent: as the mesh's default."""
    backoff: GatewayDuration | None = None

    def problems(self) -> Iterator[Problem]:
        for index, code in duplicates(self.codes):
            yield Problem(("codes", index), f"is {code}, which is there already")


EVERYTHING = HTTPRouteMatch()


class HTTPRouteRule(Model):
    name: SectionName | None = None
    matches: tuple[HTTPRouteMatch, ...] = (EVERYTHING,)
    filters: tuple[HTTPFilter, ...] = ()
    backend_refs: tuple[HTTPBackendRef, ...] = ()
    timeouts: HTTPRouteTimeouts | None = None
    retry: HTTPRouteRetry | None = None
    session_persistence: SessionPersistence | None = None

    def problems(self) -> Iterator[Problem]:
        yield from count_problems("matches", self.matches, 64)
        yield from count_problems("backendRefs", self.backend_refs, 16)
        yield from filter_problems(self.filters)
        redirects = any(each.request_redirect is not None for each in self.filters)
        if redirects and self.backend_refs:
            yield Problem(("backendRefs",), "must not stand beside a RequestRedirect filter")
        single = len(self.matches) == 1 and self.matches[0].path.type is PathMatchType.PREFIX
        if not single:
            rule = "needs exactly one match of the rule, and its path to be a PathPrefix"
            for index in prefix_modifiers(self.filters):
                yield Problem(("filters", index), f"replaces the matched prefix; that {rule}")
            for at, backend in enumerate(self.backend_refs):
                for index in prefix_modifiers(backend.filters):
                    yield Problem(
                        ("backendRefs", at, "filters", index), f"replaces the matched prefix; that {rule}"
                    )


class HTTPRoute(Model):
    """Where HTTP requests go, by path, headers, query and method, and what happens to them."""

    parent_refs: tuple[ParentReference, ...] = ()
    use_default_gateways: GatewayDefaultScope | None = None
    hostnames: tuple[Hostname, ...] = ()
    """Absent: those of the listener. Of no meaning where the parent is a Service."""
    rules: tuple[HTTPRouteRule, ...] = (HTTPRouteRule(),)

    def problems(self) -> Iterator[Problem]:
        yield from parent_problems(self.parent_refs)
        yield from route_problems(self.hostnames, self.rules)
        if not self.rules:
            yield Problem(("rules",), "must have at least one item", Code.BAD_VALUE)


def route_problems(hostnames: tuple[str, ...], rules: tuple[HTTPRouteRule, ...]) -> Iterator[Problem]:
    """What HTTPRoute and GRPCRoute have in common."""
    yield from count_problems("hostnames", hostnames, 16)
    yield from count_problems("rules", rules, 16)
    total = sum(len(rule.matches) for rule in rules)
    if total > MAX_MATCHES:
        message = f"have {total} matches together; at most {MAX_MATCHES} are allowed"
        yield Problem(("rules",), message, Code.BAD_VALUE)
    for index, name in duplicates(rule.name for rule in rules):
        if name is not None:
            yield Problem(("rules", index, "name"), f"is {name}, which is there already")
