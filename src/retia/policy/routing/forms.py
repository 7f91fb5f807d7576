"""The middle form of VirtualService: rules in order, every name resolved, every default filled in."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from retia.model.finding import Finding
from retia.model.ids import Host
from retia.model.objects import ObjectRef
from retia.model.resource import Provenance

MILLION = 1_000_000
"""Shares are counted in millionths, as in Envoy."""


class MatchKind(StrEnum):
    EXACT = "exact"
    PREFIX = "prefix"
    SEGMENTS = "segments"
    """A prefix of whole path segments, with no slash at its end: ``/a`` matches ``/a`` and ``/a/b``."""
    REGEX = "regex"
    PRESENT = "present"


@dataclass(frozen=True, slots=True)
class TextMatch:
    kind: MatchKind
    value: str = ""


@dataclass(frozen=True, slots=True)
class NamedMatch:
    """A header or query parameter. Pseudo headers (``:method``) are headers too."""

    name: str
    match: TextMatch
    invert: bool = False


@dataclass(frozen=True, slots=True)
class RequestMatch:
    """All of it must hold. ``path`` without a value: every path."""

    path: TextMatch | None = None
    ignore_case: bool = False
    headers: tuple[NamedMatch, ...] = ()
    query: tuple[NamedMatch, ...] = ()
    name: str = ""
    """For people: part of the route's name."""
    share: int = 0
    """Of the requests that match otherwise, a random share, in millionths; 0: all of them."""
    stat_prefix: str = ""
    """Statistics of the requests that it matches are kept under this name; empty: none are."""

    @property
    def is_everything(self) -> bool:
        return self.path is None and not self.headers and not self.query and not self.share


@dataclass(frozen=True, slots=True)
class HeaderEdits:
    set: tuple[tuple[str, str], ...] = ()
    add: tuple[tuple[str, str], ...] = ()
    remove: tuple[str, ...] = ()
    host: str = ""
    """A new ``Host`` header; empty: as it came."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where requests go: a service's port and subset."""

    host: Host
    port: int
    subset: str = ""


@dataclass(frozen=True, slots=True)
class WeightedTarget:
    target: Target
    weight: int = 1
    request: HeaderEdits = HeaderEdits()
    response: HeaderEdits = HeaderEdits()
    broken: bool = False
    """It means no destination: its share of the requests gets the rule's ``broken_status``."""


BROKEN = Target(Host(""), 0)
"""The target of a share that is ``broken``."""


@dataclass(frozen=True, slots=True)
class Retry:
    """``attempts`` counts those beyond the first."""

    attempts: int
    on: str
    status_codes: tuple[int, ...] = ()
    per_try_timeout_s: float | None = None
    backoff_s: float | None = None
    other_hosts: bool | None = None
    """A retry avoids the endpoints that were tried before. ``None``: unless a hash chose the endpoint."""
    other_localities: bool = False
    """A retry prefers endpoints of a priority, and so of a locality, that wasn't tried before."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Shares in millionths."""

    delay_s: float | None = None
    delay_share: int = 0
    abort_status: int = 0
    abort_grpc: int | None = None
    abort_share: int = 0


@dataclass(frozen=True, slots=True)
class Mirror:
    target: Target
    share: int = MILLION
    exclude_reads: bool = False
    """Redis only: copy what changes data."""


@dataclass(frozen=True, slots=True)
class Rewrite:
    prefix: str = ""
    """What replaces the matched part of the path."""
    regex: str = ""
    substitution: str = ""
    authority: str = ""


@dataclass(frozen=True, slots=True)
class Redirect:
    path: str = ""
    prefix: str = ""
    authority: str = ""
    port: int = 0
    scheme: str = ""
    code: int = 301
    regex: str = ""
    """An expression in the path that is replaced by ``substitution``; empty: see ``path``, ``prefix``."""
    substitution: str = ""


@dataclass(frozen=True, slots=True)
class Session:
    """The requests of one session go to one endpoint, which a cookie (or a header) names."""

    cookie: str = ""
    path: str = "/"
    ttl_s: float = 0.0
    """How long the cookie lives; 0: as long as the browser's session."""
    header: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """A direct response."""

    status: int
    body: bytes = b""
    code: str = ""
    """Which of :mod:`retia.config.replies` it is; empty: the user asked for this response."""


@dataclass(frozen=True, slots=True)
class Cors:
    """Which other origins may use the answers in a browser."""

    origins: tuple[TextMatch, ...] = ()
    methods: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    """Request headers that may be sent."""
    expose: tuple[str, ...] = ()
    """Response headers that scripts may read."""
    max_age_s: int | None = None
    """How long a browser may keep the answer to a preflight. ``None``: not said; 0: not at all."""
    credentials: bool | None = None
    forward_unmatched: bool = True
    """Preflights of origins that aren't allowed go on to the service, rather than being answered here."""


@dataclass(frozen=True, slots=True)
class HttpRule:
    """One rule: its matches (any of them; none: every request), then what happens."""

    field: str
    """Where it was written: ``spec.http[0]``."""
    matches: tuple[RequestMatch, ...] = ()
    name: str = ""
    targets: tuple[WeightedTarget, ...] = ()
    redirect: Redirect | None = None
    answer: Answer | None = None
    rewrite: Rewrite | None = None
    timeout_s: float = 0.0
    """0: none, as is Istio's default."""
    retry: Retry | None = None
    fault: Fault | None = None
    mirrors: tuple[Mirror, ...] = ()
    request: HeaderEdits = HeaderEdits()
    response: HeaderEdits = HeaderEdits()
    cors: Cors | None = None
    lane: str = ""
    """The lane that its requests are put on; empty: they stay as they are."""
    ref: ObjectRef | None = None
    """The object that it was written in; ``None``: no object, a default."""
    broken_status: int = 500
    """What requests for targets get that are ``broken``: 500 or 503."""
    session: Session | None = None

    @property
    def takes_everything(self) -> bool:
        """Whether no request gets past it."""
        return not self.matches or any(match.is_everything for match in self.matches)


@dataclass(frozen=True, slots=True)
class HttpRules:
    """What holds for one host and port. No rules: none is for this client, who is served as if none were."""

    rules: tuple[HttpRule, ...]
    provenance: tuple[Provenance, ...] = ()
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class TcpRule:
    """One rule for connections: which, and where they go. The first that matches counts."""

    field: str
    """Where it was written: ``spec.tls[0]``."""
    targets: tuple[WeightedTarget, ...] = ()
    """None: connections are closed."""
    snis: tuple[str, ...] = ()
    """Server names in the TLS greeting, ``*.`` wildcards among them; none: every connection."""
    ref: ObjectRef | None = None


@dataclass(frozen=True, slots=True)
class RedisKeys:
    """Redis commands whose key begins with ``prefix`` (empty: all others)."""

    prefix: str
    remove_prefix: bool
    target: Target
    read_from: Target | None = None
    """Where those go that only read; ``None``: to the target."""
    mirrors: tuple[Mirror, ...] = ()


@dataclass(frozen=True, slots=True)
class RedisRules:
    """Where the commands of a connection go, each by its key."""

    keys: tuple[RedisKeys, ...]
    case_insensitive: bool = False
    timeout_s: float = 5.0


@dataclass(frozen=True, slots=True)
class TcpRules:
    """What holds for connections to one host and port. No rules: none is for this client."""

    rules: tuple[TcpRule, ...]
    provenance: tuple[Provenance, ...] = ()
    findings: tuple[Finding, ...] = ()
    redis: RedisRules | None = None
    """The connection is looked into: it speaks Redis. There are no other rules then."""
