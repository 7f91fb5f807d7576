"""Whatever happens, the client ends with exactly what the world has of the names that it asked for."""

from __future__ import annotations

from dataclasses import dataclass, field

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from retia.model.resource import Built, Name, Resource, TypeUrl
from retia.xds.stream import LISTED, Request, Response, Stream
from retia.xds.wire import absent, encode

CDS, EDS, VHDS, LDS = TypeUrl.CLUSTER, TypeUrl.ENDPOINTS, TypeUrl.VIRTUAL_HOST, TypeUrl.LISTENER
TYPES = (CDS, EDS, LDS, VHDS)
NAMES = ("a", "b", "c", "d")
BAD = "bad"


def spellings(type_url: TypeUrl, name: str) -> tuple[str, ...]:
    return (f"80/{name}", f"80/{name}.x") if type_url is VHDS else (name,)


@dataclass
class Model:
    """A client such as Envoy: throws a response with a bad resource away whole, and keeps books."""

    asked: dict[TypeUrl, set[str]] = field(default_factory=lambda: {t: set() for t in TYPES})
    held: dict[TypeUrl, dict[str, Resource]] = field(default_factory=lambda: {t: {} for t in TYPES})
    unanswered: set[tuple[TypeUrl, str]] = field(default_factory=set)

    def take(self, response: Response) -> str:
        names = [*response.names, *response.removed]
        assert len(names) == len(set(names)), "a name twice in one response"
        if any(BAD.encode() in r.wire for r in response.resources):
            return "one of them is bad"
        if response.type is VHDS and self.overlap(response):
            return "two of them have one domain"
        held = self.held[response.type]
        for name in response.removed:
            held.pop(name, None)
            self.unanswered.discard((response.type, name))
        for resource in response.resources:
            if resource.exists or not held.get(resource.name, resource).exists:
                held[resource.name] = resource
            for alias in (resource.name, *resource.aliases):
                self.unanswered.discard((response.type, alias))
        return ""

    def overlap(self, response: Response) -> bool:
        """Whether two virtual hosts would have one domain; what only a request named is no domain."""
        after = {n: r for n, r in self.held[VHDS].items() if n not in response.removed}
        after |= {r.name: r for r in response.resources if r.exists}
        domains = [d for r in after.values() if r.exists for d in DOMAINS[r.version]]
        return len(domains) != len(set(domains))


DOMAINS: dict[str, tuple[str, ...]] = {}
"""The domains of virtual hosts, by version."""


class Conversation(RuleBasedStateMachine):
    @initialize()
    def start(self) -> None:
        self.resources: dict[Name, Resource] = {}
        self.client = Model()
        self.connect()

    # -- the world -----------------------------------------------------------------------------------------

    def get(self, name: Name) -> Resource | None:
        return self.resources.get(name) or absent(name.type, name.name)

    def listed(self, type_url: TypeUrl) -> tuple[str, ...]:
        return tuple(n.name for n in self.resources if n.type is LDS) if type_url is LDS else ()

    @rule(
        type_url=st.sampled_from(TYPES),
        name=st.sampled_from(NAMES),
        content=st.sampled_from(("1", "2", "3", BAD)),
        refs=st.sets(st.sampled_from(NAMES)),
    )
    def put(self, type_url: TypeUrl, name: str, content: str, refs: set[str]) -> None:
        keys = spellings(type_url, name)
        if type_url is CDS:
            to = (Name(EDS, name),)
        else:
            to = tuple(Name(CDS, r) for r in sorted(refs)) if type_url is VHDS else ()
        resource = encode(type_url, Built(keys[0], f"{keys} {content}".encode(), keys[1:], to))
        DOMAINS[resource.version] = keys
        for key in keys:
            self.resources[Name(type_url, key)] = resource
        self.changed(type_url, keys)

    @rule(name=st.sampled_from(NAMES))
    def put_apart(self, name: str) -> None:
        """Each spelling of a host becomes a host of its own."""
        keys = spellings(VHDS, name)
        for key in keys:
            resource = encode(VHDS, Built(key, f"{key} alone".encode(), (key,)))
            DOMAINS[resource.version] = (key,)
            self.resources[Name(VHDS, key)] = resource
        self.changed(VHDS, keys)

    @rule(type_url=st.sampled_from(TYPES), name=st.sampled_from(NAMES))
    def drop(self, type_url: TypeUrl, name: str) -> None:
        keys = spellings(type_url, name)
        for key in keys:
            self.resources.pop(Name(type_url, key), None)
        self.changed(type_url, keys)

    def changed(self, type_url: TypeUrl, keys: tuple[str, ...]) -> None:
        self.stream.changed([Name(type_url, k) for k in (*keys, LISTED)])
        self.read()

    # -- the client ----------------------------------------------------------------------------------------

    def connect(self) -> None:
        self.stream = Stream(self)
        self.wire: list[Response] = []
        for type_url in TYPES:
            asked = self.client.asked[type_url]
            held = {n: r.version for n, r in self.client.held[type_url].items()}
            names = sorted(asked)
            if names and type_url in (CDS, VHDS):
                names = ["*", *names]
            if names or type_url is not EDS:
                self.stream.receive(Request(type_url, tuple(names), initial_versions=held))
        self.read()

    @rule()
    def reconnect(self) -> None:
        self.connect()

    @rule(type_url=st.sampled_from((CDS, EDS, VHDS)), name=st.sampled_from(NAMES), spelling=st.integers(0, 1))
    def ask(self, type_url: TypeUrl, name: str, spelling: int) -> None:
        key = spellings(type_url, name)[-spelling]
        self.client.asked[type_url].add(key)
        self.client.unanswered.add((type_url, key))
        self.stream.receive(Request(type_url, (key,)))
        self.read()

    @rule(name=st.sampled_from(NAMES))
    def unsubscribe(self, name: str) -> None:
        if name in self.client.asked[EDS]:
            self.client.asked[EDS].discard(name)
            self.client.held[EDS].pop(name, None)
            self.client.unanswered.discard((EDS, name))
            self.stream.receive(Request(EDS, unsubscribe=(name,)))
            self.read()

    @rule()
    def answer(self) -> None:
        if self.wire:
            response = self.wire.pop(0)
            error = self.client.take(response)
            self.stream.receive(Request(response.type, nonce=response.nonce, error=error))
            self.read()

    def read(self) -> None:
        for _ in range(100):
            response = self.stream.next()
            if response is None:
                return
            self.wire.append(response)
        raise AssertionError("it never ends")

    # -- what must hold ------------------------------------------------------------------------------------

    @invariant()
    def few_are_in_flight(self) -> None:
        for type_url in TYPES:
            assert sum(r.type is type_url for r in self.wire) <= (8 if type_url is CDS else 1)

    @rule()
    def comes_to_rest(self) -> None:
        for _ in range(200):
            if not self.wire:
                break
            self.answer()
        assert not self.wire, "it never comes to rest"
        for type_url in TYPES:
            wanted = set(self.client.asked[type_url])
            if type_url is LDS:
                wanted.update(self.listed(LDS))
            for key in wanted:
                self.check(type_url, key)
            for name, resource in self.client.held[type_url].items():
                gone = resource.exists and Name(type_url, name) not in self.resources
                assert not gone, f"{type_url.short} {name} is still held"
        self.check_unanswered()

    def check(self, type_url: TypeUrl, key: str) -> None:
        resource = self.resources.get(Name(type_url, key))
        if resource is None or BAD.encode() in resource.wire:
            return
        held = self.client.held[type_url].get(resource.name)
        assert held is not None, f"{type_url.short} {key} is missing"
        assert held.version == resource.version, f"{type_url.short} {key} is stale"

    def check_unanswered(self) -> None:
        for type_url, key in self.client.unanswered:
            known = any(key in r.aliases for r in self.client.held[type_url].values())
            refused = self.resources.get(Name(type_url, key))
            assert known or key in self.client.held[type_url] or refused, f"{type_url.short} {key} hangs"


Conversation.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestConversation = Conversation.TestCase
