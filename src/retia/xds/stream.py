"""One delta xDS stream as a plain state machine: requests in, responses and events out.

It serves every type on one stream, lazily or in full, to an Envoy (in the agent) or to any other client (in
the controller); gRPC only carries its messages. What exists is the business of a :class:`World`; what this
client wants, has, and has refused is kept here.

The rules come from trials with Envoy 1.40, and each of them was seen to hang or to break when not kept:

* A name once asked for stays wanted: when it comes into being, changes or goes, the client is told. A name
  asked for again is answered again, changed or not.
* A name that doesn't exist is answered at once: a virtual host by a resource without a message, which Envoy
  turns into a 404, everything else by ``removed_resources``.
* Clusters go before the virtual hosts, routes and listeners that refer to them, without being asked for, and
  go away after them. Envoy holds back its requests for clusters while any cluster waits for endpoints, so a
  client must never depend on such a request where it can be spared.
* After each changed cluster its endpoints are sent again, changed or not: Envoy doesn't ask for them and the
  cluster waits for them.
* An internal listener goes before the cluster that leads to it, and after the clusters that it refers to.
* Each route configuration has a placeholder ``<name>/_``, sent after the route configuration itself and in
  answer to the wildcard for virtual hosts: without it the listener stays shut.

A refused response is taken apart: its halves are sent on their own, then theirs, until the one resource that
is refused alone is known. It isn't sent again; the last good version stays in force. Only where the resource
is shaped by a security object (its ``security`` is set) that wouldn't be safe: it is then removed, so that
what it guards is shut, until the world offers another version. Whoever serves the stream reads
:meth:`Stream.events` before :meth:`Stream.next`, and so has the chance to offer one first.

Memory is bounded by the names that exist plus :data:`NAME_LIMIT`: changes that come while a response is
unanswered are remembered as a set of names. That is also how they are coalesced: the first change is sent at
once, those that follow shortly go together when it has been acknowledged.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from retia.model.resource import Name, Resource, TypeUrl
from retia.xds.messages import Request, Response
from retia.xds.subscription import REMOVED, Batch, InFlight, Subscription
from retia.xds.wire import PLACEHOLDER, absent, aliased

__all__ = [
    "LISTED",
    "NAME_LIMIT",
    "Acked",
    "Event",
    "Gone",
    "Nacked",
    "Removed",
    "Request",
    "Response",
    "Stream",
    "Wanted",
    "World",
]

LISTED = "*"
"""The name under which a change of a list is told: of :meth:`World.listed` to :meth:`Stream.changed`, and of
the cache's list by its ``update``."""

NAME_LIMIT = 4096
"""Names that a client may ask for on one stream (2,000 unknown hosts cost Envoy half a megabyte, and it keeps
them for ever)."""

RESPONSE_BYTES = 3 * 1024 * 1024
"""A response is closed when it reaches this size; gRPC clients refuse messages of more than 4 MiB."""

WINDOW = {TypeUrl.CLUSTER: 8}
"""Responses that may be unanswered at one time, by type; one where nothing is said. Envoy acknowledges no
clusters while any of them is warming, so one would hold up all; 8 is arbitrary."""

_WILDCARD_TYPES = (TypeUrl.CLUSTER, TypeUrl.LISTENER, TypeUrl.VIRTUAL_HOST)
"""Types for which a first request without names means everything."""

_PASSES = 4
"""How deep references go: a virtual host, its cluster, the listener behind that, the clusters there."""

_REFERRERS = (TypeUrl.LISTENER, TypeUrl.ROUTE, TypeUrl.VIRTUAL_HOST)
_ORDER = tuple(TypeUrl)


class World(Protocol):
    """What exists, as one client sees it."""

    def get(self, name: Name) -> Resource | None:
        """The resource of that name or alias; one with ``exists == False`` where it is known that there is
        none; ``None`` where that isn't known yet (:meth:`Stream.changed` is called when it is)."""

    def listed(self, type_url: TypeUrl) -> Sequence[str] | None:
        """The names that are sent on a wildcard; ``None`` where they aren't known yet."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """The client asked for a name that it hadn't asked for on this stream, or something that it gets refers
    to it. An answer is due."""

    name: Name


@dataclass(frozen=True, slots=True)
class Gone:
    """The client doesn't want that name any more."""

    name: Name


@dataclass(frozen=True, slots=True)
class Acked:
    """The client has accepted that resource (also one without a message)."""

    resource: Resource


@dataclass(frozen=True, slots=True)
class Removed:
    """The client has acknowledged that there is no such resource."""

    name: Name


@dataclass(frozen=True, slots=True)
class Nacked:
    """The client has refused that resource, sent alone. It won't be sent again."""

    resource: Resource
    error: str


Event = Wanted | Gone | Acked | Removed | Nacked


class Stream:
    """One client's stream. Not thread-safe; nothing in it waits.

    After :meth:`receive` and :meth:`changed`, handle :meth:`events`, then send what :meth:`next` returns
    until it returns ``None``.
    """

    def __init__(self, world: World, name_limit: int = NAME_LIMIT) -> None:
        self._world = world
        self._limit = name_limit
        self._asked = 0
        self._nonce = 0
        self._subs: dict[TypeUrl, Subscription] = {}
        self._events: list[Event] = []
        self._endpoints_due: set[str] = set()
        """Endpoints of clusters that changed before the client said which it subscribes to."""
        self._wanted_refs: set[Name] = set()
        self._missed: set[Name] = set()
        """What resources that were sent refer to, and what doesn't exist."""
        self._queued_cluster = False

    # -- what comes in -------------------------------------------------------------------------------------

    def receive(self, request: Request) -> None:
        """Take one request. One for a type that isn't served is ignored."""
        if request.type is None:
            return
        sub = self._subs.get(request.type)
        first = sub is None
        if sub is None:
            sub = self._begin(request)
        if request.nonce:
            self._settle(sub, request)
        for name in request.subscribe:
            self._ask(sub, name, force=not first)
        for name in request.unsubscribe:
            self._release(sub, name)

    def changed(self, names: Iterable[Name]) -> None:
        """The world has something else, or something at last, for ``names``; those that don't concern this
        client are passed over. ``Name(type, LISTED)``: the list of that type may differ."""
        for name in names:
            sub = self._subs.get(name.type)
            if sub is None:
                continue
            key = name.name
            if key == LISTED:
                sub.relist = sub.wildcard
            elif name in self._missed or any(
                key in names for names in (sub.asked, sub.sent, sub.waiting, sub.rejected)
            ):
                sub.mark(key)
            for alias in sub.keys_of.get(key, ()):
                sub.mark(alias)

    # -- what goes out -------------------------------------------------------------------------------------

    def events(self) -> list[Event]:
        """What has happened since the last call, in order."""
        events, self._events = self._events, []
        return events

    @property
    def due(self) -> bool:
        """Whether :meth:`next` might return something; false is certain, and cheap to ask."""
        for sub in self._subs.values():
            if sub.dirty or sub.suspects or sub.owed or sub.relist or sub.deferred:
                return True
        return False

    def next(self) -> Response | None:
        """The next response to send, or ``None``: nothing to say before something else comes in."""
        for _ in range(_PASSES):
            self._queued_cluster = False
            for type_url in _ORDER:
                sub = self._subs.get(type_url)
                if sub is None or not (sub.dirty or sub.suspects or sub.owed or sub.relist or sub.deferred):
                    continue
                if (response := self._respond(sub)) is not None:
                    return response
            if not self._queued_cluster:
                return None
        return None

    def wanted(self, type_url: TypeUrl) -> tuple[str, ...]:
        """The names of that type that the client asked for."""
        sub = self._subs.get(type_url)
        return tuple(sub.asked) if sub else ()

    def acknowledged(self, type_url: TypeUrl) -> dict[str, str]:
        """The versions of that type that the client has acknowledged, by resource name."""
        sub = self._subs.get(type_url)
        return dict(sub.good) if sub else {}

    # -- subscriptions -------------------------------------------------------------------------------------

    def _begin(self, request: Request) -> Subscription:
        assert request.type is not None
        sub = self._subs[request.type] = Subscription(request.type)
        sub.fresh = not request.initial_versions
        sub.sent.update(request.initial_versions)
        sub.good.update(request.initial_versions)
        for name in request.initial_versions:
            sub.mark(name)
        if not request.subscribe and request.type in _WILDCARD_TYPES:
            self._ask(sub, LISTED, force=False)
        return sub

    def _ask(self, sub: Subscription, key: str, *, force: bool) -> None:
        if key == LISTED:
            sub.wildcard = sub.relist = True
            sub.owed = sub.fresh and sub.type is not TypeUrl.VIRTUAL_HOST
            return
        if sub.type is TypeUrl.ENDPOINTS and key in self._endpoints_due:
            self._endpoints_due.discard(key)
            force = True
        if key not in sub.asked:
            if self._asked >= self._limit:
                if len(sub.over) < NAME_LIMIT:
                    sub.over[key] = None
                    sub.mark(key, force=True)
                return
            self._asked += 1
            sub.asked[key] = None
            self._events.append(Wanted(Name(sub.type, key)))
        sub.mark(key, force)

    def _release(self, sub: Subscription, key: str) -> None:
        if key == LISTED:
            sub.wildcard = sub.relist = sub.owed = False
        elif key in sub.asked:
            self._asked -= 1
            sub.forget(key)
            self._events.append(Gone(Name(sub.type, key)))

    # -- acknowledgements ----------------------------------------------------------------------------------

    def _settle(self, sub: Subscription, request: Request) -> None:
        flight = sub.in_flight.pop(request.nonce, None)
        if flight is None:
            return
        response = flight.response
        if request.error:
            sub.take_back(response)
            self._suspect(sub, flight, request.error)
            return
        sub.acknowledged(response)
        self._events.extend(Acked(resource) for resource in response.resources)
        self._events.extend(Removed(Name(sub.type, name)) for name in response.removed)

    def _suspect(self, sub: Subscription, flight: InFlight, error: str) -> None:
        response = flight.response
        names = response.names
        if response.removed:
            if not names:
                # Nothing in it can be at fault and nothing can be done: the client keeps what it has.
                for name in response.removed:
                    sub.told_removed(name)
                return
            sub.suspects.append(response.removed)
        if len(names) == 1 and not response.removed:
            self._reject(sub, response.resources[0], flight.keys[names[0]], error)
            return
        half = (len(names) + 1) // 2
        for part in (names[:half], names[half:]):
            if part:
                sub.suspects.append(tuple(key for name in part for key in flight.keys[name]))

    def _reject(self, sub: Subscription, resource: Resource, keys: tuple[str, ...], error: str) -> None:
        if (sub.dirty or sub.suspects) and sub.tried_again.get(resource.name) != resource.version:
            sub.tried_again[resource.name] = resource.version
            sub.deferred[resource.name] = keys
            return
        sub.rejected[resource.name] = resource.version
        self._events.append(Nacked(resource, error))
        for key in keys:
            sub.mark(key, force=key in sub.asked)
        if resource.security:
            sub.mark(resource.name)

    # -- responses -----------------------------------------------------------------------------------------

    def _respond(self, sub: Subscription) -> Response | None:
        if len(sub.in_flight) >= WINDOW.get(sub.type, 1):
            return None
        while sub.suspects:
            if sub.in_flight:
                return None
            batch = self._collect(sub, dict.fromkeys(sub.suspects.popleft(), True), alone=True)
            if batch:
                return self._launch(sub, batch)
        if sub.relist and not self._list(sub):
            return None
        if not sub.dirty and sub.deferred and not sub.in_flight:
            sub.suspects.extend(sub.deferred.values())
            sub.deferred.clear()
            return self._respond(sub)
        if not sub.dirty and not sub.owed:
            return None
        dirty, sub.dirty = sub.dirty, {}
        batch = self._collect(sub, dirty)
        if batch or (sub.owed and not sub.dirty and not sub.waiting):
            return self._launch(sub, batch)
        return None

    def _list(self, sub: Subscription) -> bool:
        """Look through the list again; whether it is known."""
        listed = self._world.listed(sub.type)
        if sub.type is TypeUrl.VIRTUAL_HOST:
            for name in self.wanted(TypeUrl.ROUTE):
                if name + PLACEHOLDER not in sub.sent:
                    sub.mark(name + PLACEHOLDER)
            if listed is None:
                return True
        elif listed is None:
            return False
        elif sub.owed and any(self._world.get(Name(sub.type, name)) is None for name in listed):
            # The first answer is whole: Envoy takes it for the end of its start.
            return False
        names = frozenset(listed)
        for name in sorted(names):
            if sub.resource_of.get(name, name) not in sub.sent:
                sub.mark(name)
        for name in sub.sent:
            if name not in names and name not in sub.asked and name not in sub.keys_of:
                sub.mark(name)
        sub.relist = False
        return True

    def _launch(self, sub: Subscription, batch: Batch) -> Response:
        self._nonce += 1
        response = Response(
            sub.type, tuple(batch.resources.values()), tuple(batch.removed), f"{self._nonce:x}"
        )
        sub.owed = False
        if sub.type is TypeUrl.CLUSTER:
            self._renew_endpoints(sub, response)
        elif sub.type is TypeUrl.ROUTE and (hosts := self._subs.get(TypeUrl.VIRTUAL_HOST)):
            for name in response.names:
                hosts.mark(name + PLACEHOLDER, force=True)
        sub.launch(response, batch.keys)
        return response

    def _renew_endpoints(self, clusters: Subscription, response: Response) -> None:
        endpoints = self._subs.get(TypeUrl.ENDPOINTS)
        for resource in response.resources:
            if clusters.sent.get(resource.name) == resource.version:
                continue
            for ref in resource.refs:
                if ref.type is not TypeUrl.ENDPOINTS:
                    continue
                if endpoints is None:
                    self._endpoints_due.add(ref.name)
                elif ref.name in endpoints.asked:
                    endpoints.mark(ref.name, force=True)

    # -- one name ------------------------------------------------------------------------------------------

    def _collect(self, sub: Subscription, keys: dict[str, bool], *, alone: bool = False) -> Batch:
        """What is to be said of ``keys`` and, unless ``alone``, of what comes up meanwhile; what must wait
        stays dirty."""
        batch = Batch()
        later: dict[str, bool] = {}
        while keys:
            for key, force in keys.items():
                full = batch.size_bytes >= RESPONSE_BYTES
                if full or not self._look(sub, key, force, batch):
                    later[key] = later.get(key, False) or force
            if alone:
                break
            # Looking at a name may bring up others, whose news belong into the same response.
            keys = {k: sub.dirty.pop(k) for k in tuple(sub.dirty) if k not in later}
            if batch.size_bytes >= RESPONSE_BYTES:
                break
        for key, force in (*(() if alone else keys.items()), *later.items()):
            sub.mark(key, force)
        return batch

    def _look(self, sub: Subscription, key: str, force: bool, batch: Batch) -> bool:
        """Put what is to be said of ``key`` into the batch; false: it must wait, look again."""
        if not (sub.wildcard or key in sub.asked or key in sub.over or key in sub.sent):
            return True
        resource = self._find(sub, key)
        if resource is None:
            sub.waiting[key] = sub.waiting.get(key, False) or force
            return True
        if not resource.exists:
            return self._deny(sub, key, force, batch)
        name = resource.name
        if sub.rejected.get(name) == resource.version:
            return self._withhold(sub, key, force, batch, resource)
        if key == name:
            sub.unlink(key)
        elif sub.holds(key):
            # The client has a resource of that very name, which this one takes the place of.
            if batch.has(key):
                return False
            batch.removed[key] = None
            sub.told_removed(key)
        news = key in sub.asked and key != name and sub.link(key, name) and key not in resource.aliases
        if sub.sent.get(name) == resource.version and not force and not news and name not in batch.resources:
            return True
        if name in batch.removed or not self._clusters_sent(sub, resource):
            return False
        if not self._listeners_sent(sub, resource):
            return False
        foreign = tuple(k for k in sub.keys_of.get(name, ()) if k not in resource.aliases)
        if key != name and key not in sub.asked:
            foreign = (*foreign, key)
        sub.over.pop(key, None)
        batch.add(key, aliased(resource, foreign))
        return True

    def _find(self, sub: Subscription, key: str) -> Resource | None:
        if sub.type is TypeUrl.VIRTUAL_HOST and key.endswith(PLACEHOLDER):
            return absent(sub.type, key)
        resource = self._world.get(Name(sub.type, key))
        if resource is None and key in sub.over:
            return absent(sub.type, key)
        return resource

    def _deny(self, sub: Subscription, key: str, force: bool, batch: Batch) -> bool:
        """``key`` doesn't exist."""
        if sub.type is TypeUrl.VIRTUAL_HOST:
            return self._deny_host(sub, key, force, batch)
        due = key in sub.asked or key in sub.over
        if not force and (sub.sent.get(key) == REMOVED or (key not in sub.sent and not due)):
            return True
        if sub.type is TypeUrl.CLUSTER and not force and sub.holds(key) and self._referrers_busy():
            # Those that are merely to be looked at may turn out unchanged, and then nobody asks again.
            self._queued_cluster = True
            return False
        if key in batch.resources:
            return False
        sub.over.pop(key, None)
        batch.removed[key] = None
        sub.told_removed(key)
        return True

    def _deny_host(self, sub: Subscription, key: str, force: bool, batch: Batch) -> bool:
        sub.unlink(key)
        over = key in sub.over
        if sub.holds(key):
            if batch.has(key):
                return False
            batch.removed[key] = None
            sub.told_removed(key)
            # A request that waits for this name is only let go by an answer that bears it.
            return not force
        if not (key in sub.asked or over or key.endswith(PLACEHOLDER)):
            if key in sub.sent and not batch.has(key):
                batch.removed[key] = None
                sub.told_removed(key)
            return True
        if force or key not in sub.sent:
            if batch.has(key):
                return False
            batch.add(key, absent(sub.type, key))
        sub.over.pop(key, None)
        return True

    def _withhold(self, sub: Subscription, key: str, force: bool, batch: Batch, resource: Resource) -> bool:
        """All there is for ``key`` is what the client has refused."""
        name = resource.name
        if not sub.holds(name):
            return self._deny(sub, key, force, batch)
        if resource.security:
            if batch.has(name):
                return False
            batch.removed[name] = None
            sub.told_removed(name)
            return key == name
        if force and sub.type is TypeUrl.VIRTUAL_HOST and key != name:
            if batch.has(key):
                return False
            batch.add(key, absent(sub.type, key))
        return True

    # -- references ----------------------------------------------------------------------------------------

    def _clusters_sent(self, sub: Subscription, resource: Resource) -> bool:
        """Whether the clusters that ``resource`` refers to are on their way; puts those that aren't in line.

        Only a client that takes everything (a wildcard) takes clusters that it didn't ask for.
        """
        if sub.type not in _REFERRERS:
            return True
        clusters = self._subs.get(TypeUrl.CLUSTER)
        if clusters is None or not clusters.wildcard:
            return True
        ready = True
        for ref in resource.refs:
            if ref.type is TypeUrl.CLUSTER and not self._cluster_sent(clusters, ref):
                ready = False
        return ready

    def _cluster_sent(self, clusters: Subscription, ref: Name) -> bool:
        cluster = self._world.get(ref)
        if cluster is None:
            if ref not in self._wanted_refs:
                self._wanted_refs.add(ref)
                self._events.append(Wanted(ref))
            return False
        self._wanted_refs.discard(ref)
        self._note_missed(ref, cluster)
        if not cluster.exists or clusters.rejected.get(cluster.name) == cluster.version:
            return True
        if clusters.sent.get(cluster.name) == cluster.version:
            return True
        if ref.name not in clusters.dirty and not any(ref.name in group for group in clusters.suspects):
            clusters.mark(ref.name)
            self._queued_cluster = True
        return False

    def _listeners_sent(self, sub: Subscription, resource: Resource) -> bool:
        """Whether the internal listeners that a cluster leads to are on their way, and what they lead to is
        ready; puts listeners that aren't sent in line. A connection through such a cluster would be refused
        before, and a command of Redis answered with an error."""
        listeners = self._subs.get(TypeUrl.LISTENER)
        if sub.type is not TypeUrl.CLUSTER or listeners is None or not listeners.wildcard:
            return True
        ready = True
        for ref in resource.refs:
            if ref.type is TypeUrl.LISTENER and not self._listener_sent(listeners, ref):
                ready = False
        return ready

    def _listener_sent(self, listeners: Subscription, ref: Name) -> bool:
        listener = self._world.get(ref)
        if listener is None:
            if ref not in self._wanted_refs:
                self._wanted_refs.add(ref)
                self._events.append(Wanted(ref))
            return False
        self._wanted_refs.discard(ref)
        self._note_missed(ref, listener)
        if not listener.exists or listeners.rejected.get(listener.name) == listener.version:
            return True
        if listeners.sent.get(listener.name) == listener.version:
            return all(self._is_warm(r) for r in listener.refs if r.type is TypeUrl.CLUSTER)
        if ref.name not in listeners.dirty and not any(ref.name in group for group in listeners.suspects):
            listeners.mark(ref.name)
        return False

    def _note_missed(self, ref: Name, found: Resource) -> None:
        """Remember what something refers to while it doesn't exist: what refers to it need not change when it
        comes up, and the client has never asked for it."""
        if found.exists:
            self._missed.discard(ref)
        else:
            self._missed.add(ref)

    def _is_warm(self, ref: Name) -> bool:
        """Whether the client has a cluster and its endpoints, as far as there are any to be had: it puts a
        cluster to use only then."""
        cluster = self._world.get(ref)
        clusters = self._subs.get(TypeUrl.CLUSTER)
        if cluster is None or clusters is None:
            return False
        if not cluster.exists or clusters.rejected.get(cluster.name) == cluster.version:
            return True
        if clusters.good.get(cluster.name) != cluster.version:
            return False
        return all(self._has_endpoints(r) for r in cluster.refs if r.type is TypeUrl.ENDPOINTS)

    def _has_endpoints(self, ref: Name) -> bool:
        found = self._world.get(ref)
        if found is not None and not found.exists:
            return True
        endpoints = self._subs.get(TypeUrl.ENDPOINTS)
        return endpoints is not None and (ref.name in endpoints.good or ref.name in endpoints.rejected)

    def _referrers_busy(self) -> bool:
        """Whether something that may refer to a cluster is still to be replaced at the client."""
        subs = (self._subs.get(t) for t in _REFERRERS)
        return any(s is not None and bool(s.dirty or s.in_flight or s.suspects) for s in subs)
