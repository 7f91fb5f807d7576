"""What is found out: the steps of a path, and what becomes of the call."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Listener:
    """Where the connection enters the proxy."""

    name: str
    address: str
    why: str


@dataclass(frozen=True, slots=True)
class Chain:
    """The filter chain that takes it. ``name`` may be empty: Envoy does not ask for one."""

    name: str
    why: str
    tls: bool = False
    """It ends TLS."""
    requires_certificate: bool = False
    trusts: tuple[str, ...] = ()
    """Patterns of the names that a client certificate must have; empty: any that the trust bundle covers."""


@dataclass(frozen=True, slots=True)
class NetworkFilter:
    """A filter for bytes, before whatever passes them on."""

    name: str
    says: str


@dataclass(frozen=True, slots=True)
class VirtualHost:
    """What the ``Host`` header was understood as."""

    route_config: str
    name: str
    domain: str
    """The pattern that matched."""
    why: str


@dataclass(frozen=True, slots=True)
class Lost:
    """Another route of the same virtual host, and why the request did not go there."""

    index: int
    name: str
    object: str
    field: str
    why: str
    matches: bool = False
    """It would have matched too, had it come first."""


@dataclass(frozen=True, slots=True)
class Rule:
    """The route that took the request. ``object`` is ``Kind/namespace/name``; empty: the mesh's own."""

    index: int
    name: str
    object: str
    field: str
    why: str
    lost: tuple[Lost, ...] = ()


@dataclass(frozen=True, slots=True)
class Effect:
    """A filter that applies. ``origin``: what configures it (``chain``, ``virtual host``, ``route``,
    ``weighted cluster``); ``config`` is its configuration in words."""

    name: str
    origin: str
    config: str


@dataclass(frozen=True, slots=True)
class Fault:
    """What the fault filter does. Shares are 0..1."""

    delay_s: float | None = None
    delay_share: float = 0.0
    status: int | None = None
    grpc_status: int | None = None
    abort_share: float = 0.0


@dataclass(frozen=True, slots=True)
class Unknown:
    """Something that can't be interpreted here; from there on the path may be otherwise."""

    where: str
    what: str


Step = Listener | Chain | NetworkFilter | VirtualHost | Rule | Effect | Unknown


@dataclass(frozen=True, slots=True)
class Answer:
    """The proxy answers by itself. ``body`` is empty where it isn't known."""

    status: int
    why: str
    body: str = ""
    location: str = ""
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Tls:
    """How the proxy opens TLS to a destination."""

    server_name: str = ""
    alpn: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    """Names that the other side's certificate must have one of; empty: no check of names."""
    certificate: str = ""
    """The secret or file of the proxy's own certificate; empty: none is shown."""
    trust: str = ""
    """The secret or file of the trust bundle; empty: the certificate isn't verified."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address that the proxy connects to."""

    address: str
    """``ip:port``, or a host name with port, or ``internal:<listener>``."""
    priority: int = 0
    locality: str = ""
    weight: int = 1
    health: str = ""
    """As the resource says; empty: nothing is said, so it is taken for healthy."""
    tls: Tls | None = None
    metadata: tuple[tuple[str, str], ...] = ()
    share: float = 0.0
    """Of the cluster's calls, 0..1, while all is healthy that the resource does not call otherwise; what a
    hash of the call decides is not counted in."""


@dataclass(frozen=True, slots=True)
class Edits:
    """Header changes in the order in which Envoy makes them. Values may hold Envoy's ``%COMMANDS%``."""

    remove: tuple[str, ...] = ()
    set: tuple[tuple[str, str], ...] = ()
    add: tuple[tuple[str, str], ...] = ()

    def applied(self, headers: dict[str, str]) -> dict[str, str]:
        """The headers after the changes; several values of one name are joined by commas."""
        found = {name: value for name, value in headers.items() if name not in self.remove}
        for name, value in self.set:
            found[name] = value
        for name, value in self.add:
            found[name] = f"{found[name]},{value}" if name in found else value
        return found

    def then(self, other: Edits) -> Edits:
        return Edits(self.remove + other.remove, self.set + other.set, self.add + other.add)


@dataclass(frozen=True, slots=True)
class Destination:
    """A cluster that calls go to. ``share``: of all calls like this one, 0..1."""

    cluster: str
    share: float
    exists: bool = True
    missing_status: int = 503
    """What calls get where the cluster doesn't exist."""
    kind: str = ""
    """``EDS``, ``STATIC``, ``STRICT_DNS``, ``LOGICAL_DNS``, ``ORIGINAL_DST`` or the name of an extension."""
    balancing: str = ""
    endpoints: tuple[Endpoint, ...] = ()
    limits: tuple[tuple[str, int], ...] = ()
    """Circuit breakers that can open."""
    outliers: tuple[tuple[str, str], ...] = ()
    connect_timeout_s: float = 5.0
    codec: str = ""
    """``http1``, ``http2``, ``as the client`` or ``auto``; empty: bytes are passed."""
    method: str = ""
    host: str = ""
    """The ``Host`` header that the other side sees."""
    path: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    """The request's headers as the other side sees them, without those that Envoy adds by itself."""
    request_edits: Edits = Edits()
    response_edits: Edits = Edits()
    effects: tuple[Effect, ...] = ()
    next: Path | None = None
    """Where the cluster leads to an internal listener of the same proxy: what happens there."""


@dataclass(frozen=True, slots=True)
class Retry:
    """When and how often Envoy tries again."""

    on: str
    attempts: int
    statuses: tuple[int, ...] = ()
    per_try_timeout_s: float | None = None
    other_hosts: bool = False
    backoff_s: float | None = None


@dataclass(frozen=True, slots=True)
class Mirror:
    """A copy of the request, whose answer nobody waits for."""

    cluster: str
    share: float


@dataclass(frozen=True, slots=True)
class Path:
    """What one proxy does with a call. Exactly one of ``answer``, ``refused`` and ``destinations`` is set,
    unless ``unknown`` says why not."""

    steps: tuple[Step, ...]
    answer: Answer | None = None
    refused: str = ""
    """Why the connection is closed without an answer."""
    destinations: tuple[Destination, ...] = ()
    fault: Fault | None = None
    timeout_s: float | None = None
    """Of the whole answer; 0: none. ``None``: not HTTP."""
    idle_timeout_s: float | None = None
    """``None``: the connection manager's."""
    retry: Retry | None = None
    mirrors: tuple[Mirror, ...] = ()
    hashed_by: tuple[str, ...] = ()
    """What chooses the endpoint, in words; empty: nothing of the call."""
    alternatives: tuple[tuple[float, Path], ...] = field(default=())
    """Where chance decides between rules: the share and path of each other rule that may take the request."""

    @property
    def rule(self) -> Rule | None:
        return next((s for s in self.steps if isinstance(s, Rule)), None)

    @property
    def chain(self) -> Chain | None:
        return next((s for s in self.steps if isinstance(s, Chain)), None)

    @property
    def effects(self) -> tuple[Effect, ...]:
        return tuple(s for s in self.steps if isinstance(s, Effect))

    @property
    def unknown(self) -> tuple[Unknown, ...]:
        """All that could not be interpreted, with that of internal listeners."""
        own = tuple(s for s in self.steps if isinstance(s, Unknown))
        for destination in self.destinations:
            if destination.next is not None:
                own += destination.next.unknown
        return own
