"""``RateLimitPolicy``: how much is let through. retia.dev."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated

from pydantic import Field, Strict

from retia.config.codes import Code
from retia.config.schema.base import Model, Problem, one_of
from retia.config.schema.policy_target import PolicyTargets
from retia.config.schema.request_match import RequestCondition, length
from retia.config.schema.types import DnsLabel, Flag, PositiveDuration, Text, duplicates

Amount = Annotated[int, Strict(), Field(ge=1, le=2**32 - 2)]
Bytes = Annotated[int, Strict(), Field(ge=1024, le=2**43)]
LimitedStatus = Annotated[int, Strict(), Field(ge=400, le=599)]

UNIT_S = {"Second": 1.0, "Minute": 60.0, "Hour": 3600.0, "Day": 86400.0}


class Scope(StrEnum):
    LOCAL = "Local"
    """Each proxy counts for itself: nothing to run, nothing that may fail."""
    GLOBAL = "Global"
    """All proxies count together, in the counting service (``retia ratelimit``)."""


class Unit(StrEnum):
    SECOND = "Second"
    MINUTE = "Minute"
    HOUR = "Hour"
    DAY = "Day"


class Unavailable(StrEnum):
    ALLOW = "Allow"
    DENY = "Deny"


class KeyType(StrEnum):
    HEADER = "Header"
    COOKIE = "Cookie"
    PATH = "Path"
    """Without the query."""
    SOURCE_IDENTITY = "SourceIdentity"
    """The caller's SPIFFE id."""
    REMOTE_ADDRESS = "RemoteAddress"


class CountingKey(Model):
    """Requests that differ in it are counted apart; those that lack it are counted together."""

    type: KeyType
    name: Text = ""
    """Of the header or cookie."""

    def problems(self) -> Iterator[Problem]:
        named = self.type in (KeyType.HEADER, KeyType.COOKIE)
        if named and not self.name:
            yield Problem(("name",), f"must be given with type {self.type}", Code.MISSING_FIELD)
        if not named and self.name:
            yield Problem(("name",), f"must not be given with type {self.type}")


class RateLimit(Model):
    """One limit: a number of one thing, for a time."""

    name: DnsLabel
    """Unique in the policy; a global limit's counters are kept under it."""
    scope: Scope = Scope.LOCAL
    requests: Amount | None = None
    """HTTP requests; a gRPC call is one, however many messages it carries."""
    messages: Amount | None = None
    """gRPC messages."""
    connections: Amount | None = None
    """New connections of any protocol."""
    concurrent_connections: Amount | None = None
    """Connections at one time; has no ``per``."""
    bytes: Bytes | None = None
    """Bytes of bodies, each way; more is slowed down, not refused. At least 1024 a second."""
    per: Unit | None = None
    """The time that the number is for. Absent: ``unit``, or a second."""
    unit: PositiveDuration | None = None
    """The same as a duration: ``10s``; at least 50ms, and whole seconds for a global limit."""
    burst: Amount | None = None
    """How many a local limit lets through at once after a pause. Absent: the number itself."""
    when: tuple[RequestCondition, ...] = ()
    """What is counted: requests for which one of these holds. Empty: all."""
    by: tuple[CountingKey, ...] = ()
    """What is counted apart. Empty: all is counted together."""
    shadow: Flag = False
    """Count, and refuse nothing: to try a limit out."""

    @property
    def window_s(self) -> float:
        """The time that the number is for."""
        if self.unit is not None:
            return float(self.unit)
        return UNIT_S[self.per] if self.per is not None else 1.0

    @property
    def of_requests(self) -> bool:
        return self.requests is not None

    def problems(self) -> Iterator[Problem]:
        yield from one_of(
            self, "requests", "messages", "connections", "concurrent_connections", "bytes", required=True
        )
        yield from one_of(self, "per", "unit")
        if self.window_s < 0.05:
            yield Problem(("unit",), "must be 50ms or more", Code.BAD_VALUE)
        if self.concurrent_connections is not None and (self.per or self.unit):
            yield Problem(("per" if self.per else "unit",), "must not stand beside concurrentConnections")
        if self.bytes is not None and self.bytes / self.window_s < 1024:
            yield Problem(("bytes",), "is less than 1024 a second, Envoy's least", Code.BAD_VALUE)
        if not self.of_requests:
            yield from self._requests_only()
        elif self.scope is Scope.GLOBAL:
            yield from self._global_only()

    def _requests_only(self) -> Iterator[Problem]:
        message = "is for limits in requests only"
        for field in ("when", "by", "shadow"):
            if getattr(self, field):
                yield Problem((field,), message)
        if self.scope is Scope.GLOBAL:
            yield Problem(("scope",), f"is Global, which {message}")
        if self.burst is not None and self.connections is None:
            yield Problem(("burst",), "is for limits in requests and connections only")

    def _global_only(self) -> Iterator[Problem]:
        if self.burst is not None:
            yield Problem(("burst",), "is for local limits: a global one counts in a window")
        if self.window_s != int(self.window_s):
            yield Problem(("unit",), "must be whole seconds for a global limit", Code.BAD_VALUE)


class RateLimitPolicy(PolicyTargets):
    """Limits for services, gateways or single routes. All policies for one place hold together."""

    limits: Annotated[tuple[RateLimit, ...], length(1, 64)]
    status: LimitedStatus = 429
    """What a refused HTTP request gets; gRPC clients get RESOURCE_EXHAUSTED. Global limits: 429 only."""
    on_unavailable: Unavailable = Unavailable.ALLOW
    """What becomes of requests while the counting service is away; for global limits."""
    response_headers: Flag = True
    """Tell clients what is left: ``x-ratelimit-limit``, ``-remaining``, ``-reset``."""

    def problems(self) -> Iterator[Problem]:
        yield from super().problems()
        for index, name in duplicates(limit.name for limit in self.limits):
            yield Problem(("limits", index, "name"), f"is {name}, which is there already")
        kinds = {limit.scope for limit in self.limits}
        if self.status != 429 and Scope.GLOBAL in kinds:
            yield Problem(("status",), f"is {self.status}; with a global limit it is 429")
        if self.on_unavailable is Unavailable.DENY and Scope.GLOBAL not in kinds:
            yield Problem(("onUnavailable",), "is for global limits: local ones need nobody else")
        routes = [ref for ref in self.target_refs if ref.is_route]
        for index, limit in enumerate(self.limits):
            if routes and not limit.of_requests:
                message = f"is for a Service or Gateway; {routes[0].kind} {routes[0].name} is a route"
                yield Problem(("limits", index), message)
