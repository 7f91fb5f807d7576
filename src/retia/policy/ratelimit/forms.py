"""The middle form of RateLimitPolicy: limits with every default filled in."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from retia.model.objects import ObjectRef
from retia.model.resource import Provenance


class TestKind(StrEnum):
    """How a value is compared."""

    __test__ = False

    EXACT = "exact"
    PREFIX = "prefix"
    SEGMENTS = "segments"
    """A prefix by whole segments of a path."""
    REGEX = "regex"
    PRESENT = "present"


@dataclass(frozen=True, slots=True)
class Test:
    """A comparison."""

    __test__ = False

    kind: TestKind
    value: str = ""


@dataclass(frozen=True, slots=True)
class Condition:
    """All of it must hold; of lists, one item. Empty fields say nothing."""

    method: str = ""
    path: Test | None = None
    headers: tuple[tuple[str, Test], ...] = ()
    identities: tuple[Test, ...] = ()
    """Of the caller's SPIFFE id."""
    networks: tuple[str, ...] = ()
    """IPv4 networks, one of which the caller's address is in."""


class KeyKind(StrEnum):
    HEADER = "header"
    PATH = "path"
    IDENTITY = "identity"
    ADDRESS = "address"


@dataclass(frozen=True, slots=True)
class Key:
    """What is counted apart."""

    kind: KeyKind
    name: str = ""


@dataclass(frozen=True, slots=True)
class Limit:
    """A number of requests for a time."""

    id: str
    """``namespace/policy/limit``: the name under which it is counted."""
    requests: int
    window_s: float
    burst: int
    """How many at once; for local limits."""
    shared: bool
    """Counted by the counting service for all proxies together."""
    shadow: bool = False
    deny: bool = False
    """Refuse while the counting service is away."""
    when: tuple[Condition, ...] = ()
    by: tuple[Key, ...] = ()
    status: int = 429
    headers: bool = True


@dataclass(frozen=True, slots=True)
class ConnectionLimit:
    """``window_s`` 0: at one time; otherwise new ones in that time."""

    id: str
    connections: int
    window_s: float = 0.0
    burst: int = 0


@dataclass(frozen=True, slots=True)
class Throttle:
    """Bytes of bodies a second, each way."""

    bytes_per_s: float


@dataclass(frozen=True, slots=True)
class Limits:
    """All that holds for one place, the oldest policy's first."""

    requests: tuple[Limit, ...] = ()
    connections: tuple[ConnectionLimit, ...] = ()
    throttle: Throttle | None = None
    """The least of all."""
    provenance: tuple[Provenance, ...] = ()

    @property
    def policies(self) -> tuple[ObjectRef, ...]:
        return tuple(dict.fromkeys(each.ref for each in self.provenance))

    @property
    def needs_http(self) -> bool:
        return bool(self.requests) or self.throttle is not None
