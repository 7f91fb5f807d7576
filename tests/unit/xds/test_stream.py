"""Dialogues between an Envoy and the stream machine. Each is a rule that was seen to matter."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from retia.model.resource import Built, Name, Resource, TypeUrl
from retia.xds.stream import LISTED, Acked, Gone, Nacked, Removed, Request, Response, Stream, Wanted
from retia.xds.wire import absent, encode

CDS, EDS, SDS = TypeUrl.CLUSTER, TypeUrl.ENDPOINTS, TypeUrl.SECRET
LDS, RDS, VHDS = TypeUrl.LISTENER, TypeUrl.ROUTE, TypeUrl.VIRTUAL_HOST


class DictWorld:
    """A world of which a test says all. Names that it was told nothing of don't exist, unless pending."""

    def __init__(self) -> None:
        self.resources: dict[Name, Resource] = {}
        self.lists: dict[TypeUrl, tuple[str, ...]] = {}
        self.pending: set[Name] = set()

    def get(self, name: Name) -> Resource | None:
        if name in self.pending:
            return None
        return self.resources.get(name) or absent(name.type, name.name)

    def listed(self, type_url: TypeUrl) -> tuple[str, ...]:
        return self.lists.get(type_url, ())

    def put(
        self,
        type_url: TypeUrl,
        name: str,
        content: str = "1",
        *,
        aliases: Iterable[str] = (),
        refs: Iterable[Name] = (),
        security: bool = False,
    ) -> Resource:
        built = Built(name, content.encode(), tuple(aliases), tuple(refs), security=security)
        resource = encode(type_url, built)
        for spelling in (name, *built.aliases):
            self.resources[Name(type_url, spelling)] = resource
        return resource

    def cluster(self, name: str, content: str = "1") -> Resource:
        """A cluster with endpoints."""
        self.put(EDS, name, "endpoints")
        return self.put(CDS, name, content, refs=[Name(EDS, name)])

    def drop(self, type_url: TypeUrl, *names: str) -> None:
        for name in names:
            del self.resources[Name(type_url, name)]


class Talk:
    """The client's side of a dialogue."""

    def __init__(self, world: DictWorld, **options: int) -> None:
        self.world = world
        self.stream = Stream(world, **options)
        self.unanswered: list[Response] = []

    def ask(self, type_url: TypeUrl, *names: str, held: dict[str, str] | None = None) -> list[Response]:
        self.stream.receive(Request(type_url, subscribe=names, initial_versions=held or {}))
        return self.read()

    def read(self) -> list[Response]:
        responses = []
        while (response := self.stream.next()) is not None:
            responses.append(response)
            assert len(responses) < 100, "it never ends"
        self.unanswered += responses
        return responses

    def ack(self, *responses: Response) -> list[Response]:
        for response in responses or tuple(self.unanswered):
            self.unanswered.remove(response)
            self.stream.receive(Request(response.type, nonce=response.nonce))
        return self.read()

    def nack(self, response: Response, error: str = "bad") -> list[Response]:
        self.unanswered.remove(response)
        self.stream.receive(Request(response.type, nonce=response.nonce, error=error))
        return self.read()

    def settle(self) -> list[Response]:
        """Acknowledge until nothing more comes; what came meanwhile."""
        came: list[Response] = []
        while self.unanswered:
            came += self.ack()
        return came

    def tell(self, *names: Name) -> list[Response]:
        self.stream.changed(names)
        return self.read()


def said(responses: Iterable[Response]) -> list[str]:
    """Responses as words: ``CDS a b -c``; a resource without a message has brackets."""
    return [
        " ".join(
            (
                r.type.short,
                *(x.name if x.exists else f"({x.name})" for x in r.resources),
                *(f"-{name}" for name in r.removed),
            )
        )
        for r in responses
    ]


@pytest.fixture
def world() -> DictWorld:
    return DictWorld()


@pytest.fixture
def talk(world: DictWorld) -> Talk:
    return Talk(world)


class TestWildcard:
    def test_clusters_and_listeners_are_answered_even_when_there_are_none(self, talk: Talk) -> None:
        assert said(talk.ask(CDS)) == ["CDS"]
        assert said(talk.ask(LDS)) == ["LDS"]

    def test_the_list_is_sent_and_kept_up(self, world: DictWorld, talk: Talk) -> None:
        world.put(LDS, "inbound")
        world.put(LDS, "outbound")
        world.lists[LDS] = ("inbound", "outbound")
        assert said(talk.ask(LDS)) == ["LDS inbound outbound"]
        talk.settle()
        world.put(LDS, "extra")
        world.drop(LDS, "inbound")
        world.lists[LDS] = ("extra", "outbound")
        assert said(talk.tell(Name(LDS, LISTED))) == ["LDS extra -inbound"]

    def test_the_first_answer_waits_until_all_of_the_list_is_known(
        self, world: DictWorld, talk: Talk
    ) -> None:
        world.put(LDS, "inbound")
        world.lists[LDS] = ("inbound", "outbound")
        world.pending.add(Name(LDS, "outbound"))
        assert said(talk.ask(LDS)) == []
        world.pending.clear()
        world.put(LDS, "outbound")
        assert said(talk.tell(Name(LDS, "outbound"))) == ["LDS inbound outbound"]

    def test_legacy_star_and_explicit_names_live_together(self, world: DictWorld, talk: Talk) -> None:
        world.cluster("static")
        world.cluster("demanded")
        world.lists[CDS] = ("static",)
        assert said(talk.ask(CDS, "*", "demanded")) == ["CDS demanded static"]

    def test_an_explicit_name_does_not_end_the_legacy_wildcard(self, world: DictWorld, talk: Talk) -> None:
        talk.ask(CDS)
        talk.settle()
        talk.ask(CDS, "demanded")
        talk.settle()
        world.cluster("static")
        world.lists[CDS] = ("static",)
        assert said(talk.tell(Name(CDS, LISTED))) == ["CDS static"]

    def test_endpoints_have_no_wildcard(self, world: DictWorld, talk: Talk) -> None:
        world.put(EDS, "a")
        world.lists[EDS] = ("a",)
        assert said(talk.ask(EDS)) == []


class TestNames:
    def test_a_name_is_answered_and_wanted_from_then_on(self, world: DictWorld, talk: Talk) -> None:
        world.put(EDS, "a")
        assert said(talk.ask(EDS, "a")) == ["EDS a"]
        assert talk.stream.events() == [Wanted(Name(EDS, "a"))]
        talk.settle()
        world.put(EDS, "a", "2")
        assert said(talk.tell(Name(EDS, "a"))) == ["EDS a"]

    def test_asking_again_is_answered_again(self, world: DictWorld, talk: Talk) -> None:
        world.put(EDS, "a")
        talk.ask(EDS, "a")
        talk.settle()
        assert said(talk.ask(EDS, "a")) == ["EDS a"]

    def test_what_did_not_change_is_not_sent(self, world: DictWorld, talk: Talk) -> None:
        world.put(EDS, "a")
        talk.ask(EDS, "a")
        talk.settle()
        assert talk.tell(Name(EDS, "a")) == []

    @pytest.mark.parametrize("type_url", [CDS, EDS, SDS, RDS])
    def test_a_name_that_does_not_exist_is_removed(self, talk: Talk, type_url: TypeUrl) -> None:
        assert said(talk.ask(type_url, "none")) == [f"{type_url.short} -none"]

    def test_a_name_that_appears_later_is_pushed(self, world: DictWorld, talk: Talk) -> None:
        talk.ask(CDS, "late")
        talk.settle()
        world.cluster("late")
        assert said(talk.tell(Name(CDS, "late"))) == ["CDS late"]

    def test_a_name_that_goes_and_comes_back(self, world: DictWorld, talk: Talk) -> None:
        world.cluster("a")
        talk.ask(CDS, "a")
        talk.settle()
        world.drop(CDS, "a")
        assert said(talk.tell(Name(CDS, "a"))) == ["CDS -a"]
        talk.settle()
        assert talk.tell(Name(CDS, "a")) == []
        world.cluster("a")
        assert said(talk.tell(Name(CDS, "a"))) == ["CDS a"]

    def test_nothing_is_said_while_the_world_does_not_know(self, world: DictWorld, talk: Talk) -> None:
        world.pending.add(Name(CDS, "a"))
        assert talk.ask(CDS, "a") == []
        world.pending.clear()
        world.cluster("a")
        assert said(talk.tell(Name(CDS, "a"))) == ["CDS a"]

    def test_an_unsubscribed_name_is_left_alone(self, world: DictWorld, talk: Talk) -> None:
        world.put(EDS, "a")
        talk.ask(EDS, "a")
        talk.settle()
        talk.stream.events()
        talk.stream.receive(Request(EDS, unsubscribe=("a",)))
        assert talk.stream.events() == [Gone(Name(EDS, "a"))]
        world.put(EDS, "a", "2")
        assert talk.tell(Name(EDS, "a")) == []
        assert said(talk.ask(EDS, "a")) == ["EDS a"]

    def test_a_type_that_is_not_served_is_ignored(self, talk: Talk) -> None:
        talk.stream.receive(Request(None, subscribe=("x",), type_url="type.googleapis.com/other"))
        assert talk.read() == []


class TestVirtualHosts:
    def test_an_alias_is_answered_by_the_canonical_resource(self, world: DictWorld, talk: Talk) -> None:
        world.put(VHDS, "9080/reviews:9080", aliases=["9080/reviews", "9080/reviews.default"])
        responses = talk.ask(VHDS, "9080/reviews.default")
        assert said(responses) == ["VHDS 9080/reviews:9080"]
        assert "9080/reviews.default" in responses[0].resources[0].aliases

    def test_a_spelling_that_no_list_has_is_added_to_the_aliases(self, world: DictWorld, talk: Talk) -> None:
        wildcard = world.put(VHDS, "80/*.example.com")
        world.resources[Name(VHDS, "80/a.example.com")] = wildcard
        world.resources[Name(VHDS, "80/b.example.com")] = wildcard
        (first,) = talk.ask(VHDS, "80/a.example.com")
        assert first.resources[0].aliases == ("80/a.example.com",)
        talk.settle()
        (second,) = talk.ask(VHDS, "80/b.example.com")
        assert set(second.resources[0].aliases) == {"80/a.example.com", "80/b.example.com"}

    def test_two_spellings_are_answered_by_one_resource(self, world: DictWorld, talk: Talk) -> None:
        world.put(VHDS, "80/a", aliases=["80/a.x", "80/a.y"])
        assert said(talk.ask(VHDS, "80/a.x", "80/a.y")) == ["VHDS 80/a"]

    def test_a_host_that_does_not_exist_has_no_message(self, talk: Talk) -> None:
        assert said(talk.ask(VHDS, "80/none")) == ["VHDS (80/none)"]

    def test_a_host_that_appears_later_is_pushed_for_the_name_asked(
        self, world: DictWorld, talk: Talk
    ) -> None:
        talk.ask(VHDS, "80/a.x")
        talk.settle()
        world.put(VHDS, "80/a", aliases=["80/a.x"])
        assert said(talk.tell(Name(VHDS, "80/a.x"))) == ["VHDS 80/a"]

    def test_a_host_that_goes_is_removed_by_its_canonical_name(self, world: DictWorld, talk: Talk) -> None:
        world.put(VHDS, "80/a", aliases=["80/a.x"])
        talk.ask(VHDS, "80/a.x")
        talk.settle()
        world.drop(VHDS, "80/a", "80/a.x")
        (response,) = talk.tell(Name(VHDS, "80/a.x"))
        assert response.removed == ("80/a",)

    def test_a_removed_host_asked_for_again_is_answered_by_name(self, world: DictWorld, talk: Talk) -> None:
        world.put(VHDS, "80/a")
        talk.ask(VHDS, "80/a")
        talk.settle()
        world.drop(VHDS, "80/a")
        assert said(talk.ask(VHDS, "80/a")) == ["VHDS -80/a"]
        assert said(talk.ack()) == ["VHDS (80/a)"]

    def test_another_canonical_host_replaces_the_old_one_in_one_response(
        self, world: DictWorld, talk: Talk
    ) -> None:
        world.put(VHDS, "80/old", aliases=["80/a"])
        talk.ask(VHDS, "80/a")
        talk.settle()
        world.drop(VHDS, "80/old")
        world.put(VHDS, "80/new", aliases=["80/a"])
        assert said(talk.tell(Name(VHDS, "80/a"))) == ["VHDS 80/new -80/old"]

    def test_a_host_of_its_own_becomes_a_spelling_of_another(self, world: DictWorld, talk: Talk) -> None:
        world.put(VHDS, "80/a", "passed on")
        talk.ask(VHDS, "80/a")
        talk.settle()
        world.put(VHDS, "80/a.default", aliases=["80/a"])
        assert said(talk.tell(Name(VHDS, "80/a"))) == ["VHDS 80/a.default -80/a"]

    def test_a_spelling_becomes_a_host_of_its_own(self, world: DictWorld, talk: Talk) -> None:
        world.put(VHDS, "80/a.default", aliases=["80/a"])
        talk.ask(VHDS, "80/a")
        talk.settle()
        world.put(VHDS, "80/a.default", "passed on")
        world.put(VHDS, "80/a", "passed on")
        assert said(talk.tell(Name(VHDS, "80/a"))) == ["VHDS 80/a 80/a.default"]

    def test_the_wildcard_is_answered_by_placeholders_and_learned_hosts(
        self, world: DictWorld, talk: Talk
    ) -> None:
        world.put(RDS, "9080")
        world.put(VHDS, "9080/reviews:9080")
        world.lists[VHDS] = ("9080/reviews:9080",)
        talk.ask(RDS, "9080")
        assert said(talk.ask(VHDS)) == ["VHDS (9080/_) 9080/reviews:9080"]

    def test_a_route_configuration_added_later_brings_its_placeholder(
        self, world: DictWorld, talk: Talk
    ) -> None:
        world.put(RDS, "80")
        world.put(RDS, "81")
        talk.ask(RDS, "80")
        talk.ask(VHDS)
        talk.settle()
        assert said(talk.ask(RDS, "81")) == ["RDS 81", "VHDS (81/_)"]


class TestOrder:
    def test_clusters_go_before_the_host_that_needs_them(self, world: DictWorld, talk: Talk) -> None:
        world.cluster("a")
        world.put(VHDS, "80/a", refs=[Name(CDS, "a")])
        talk.ask(CDS)
        talk.settle()
        assert said(talk.ask(VHDS, "80/a")) == ["CDS a", "VHDS 80/a"]

    def test_the_host_does_not_wait_for_the_clusters_acknowledgement(
        self, world: DictWorld, talk: Talk
    ) -> None:
        for name in "abc":
            world.cluster(name)
            world.put(VHDS, f"80/{name}", refs=[Name(CDS, name)])
        talk.ask(CDS)
        talk.settle()
        for name in "abc":
            responses = talk.ask(VHDS, f"80/{name}")
            assert said(responses) == [f"CDS {name}", f"VHDS 80/{name}"]
            talk.ack(responses[1])

    def test_a_host_waits_for_a_cluster_that_is_not_known_yet(self, world: DictWorld, talk: Talk) -> None:
        world.pending.add(Name(CDS, "a"))
        world.put(VHDS, "80/a", refs=[Name(CDS, "a")])
        talk.ask(CDS)
        talk.settle()
        talk.stream.events()
        assert talk.ask(VHDS, "80/a") == []
        assert Wanted(Name(CDS, "a")) in talk.stream.events()
        world.pending.clear()
        world.cluster("a")
        assert said(talk.tell(Name(CDS, "a"))) == ["CDS a", "VHDS 80/a"]

    def test_a_client_without_the_wildcard_gets_only_what_it_asked_for(
        self, world: DictWorld, talk: Talk
    ) -> None:
        world.cluster("a")
        world.cluster("b")
        world.put(VHDS, "80/a", refs=[Name(CDS, "a")])
        talk.ask(CDS, "b")
        talk.settle()
        assert said(talk.ask(VHDS, "80/a")) == ["VHDS 80/a"]

    def test_a_changed_cluster_brings_its_endpoints_again(self, world: DictWorld, talk: Talk) -> None:
        world.cluster("a")
        talk.ask(CDS)
        talk.ask(CDS, "a")
        talk.ask(EDS, "a")
        talk.settle()
        world.cluster("a", "2")
        assert said(talk.tell(Name(CDS, "a"))) == ["CDS a", "EDS a"]

    def test_a_cluster_that_changed_while_away_brings_its_endpoints(
        self, world: DictWorld, talk: Talk
    ) -> None:
        old = world.cluster("a")
        endpoints = world.resources[Name(EDS, "a")]
        world.cluster("a", "2")
        assert said(talk.ask(CDS, "*", "a", held={"a": old.version})) == ["CDS a"]
        assert said(talk.ask(EDS, "a", held={"a": endpoints.version})) == ["EDS a"]

    @pytest.mark.parametrize("referrer", [LDS, VHDS])
    def test_a_cluster_comes_up_after_what_refers_to_it(
        self, world: DictWorld, talk: Talk, referrer: TypeUrl
    ) -> None:
        talk.ask(CDS, "*")
        world.put(referrer, "80/a", refs=[Name(CDS, "a")])
        talk.ask(referrer, "80/a")
        talk.settle()
        assert talk.tell(Name(CDS, "a"), Name(CDS, "b")) == []
        world.cluster("a")
        world.cluster("b")
        assert said(talk.tell(Name(CDS, "a"), Name(CDS, "b"))) == ["CDS a"]

    def test_an_unsolicited_cluster_is_kept_up(self, world: DictWorld, talk: Talk) -> None:
        world.cluster("a")
        world.put(VHDS, "80/a", refs=[Name(CDS, "a")])
        talk.ask(CDS)
        talk.settle()
        talk.ask(VHDS, "80/a")
        talk.settle()
        world.cluster("a", "2")
        assert said(talk.tell(Name(CDS, "a"))) == ["CDS a"]

    def test_a_cluster_goes_after_the_host_that_needed_it(self, world: DictWorld, talk: Talk) -> None:
        world.cluster("a")
        world.cluster("b")
        world.put(VHDS, "80/a", refs=[Name(CDS, "a")])
        talk.ask(CDS)
        talk.ask(VHDS, "80/a")
        talk.settle()
        world.drop(CDS, "a")
        world.put(VHDS, "80/a", "2", refs=[Name(CDS, "b")])
        assert said(talk.tell(Name(CDS, "a"), Name(VHDS, "80/a"))) == ["CDS b", "VHDS 80/a"]
        assert said(talk.settle()) == ["CDS -a"]

    def test_a_cluster_goes_at_once_where_its_referrers_turn_out_unchanged(
        self, world: DictWorld, talk: Talk
    ) -> None:
        world.cluster("a")
        world.put(VHDS, "80/b")
        talk.ask(CDS)
        talk.ask(CDS, "a")
        talk.ask(VHDS, "80/b")
        talk.settle()
        world.drop(CDS, "a")
        assert said(talk.tell(Name(CDS, "a"), Name(VHDS, "80/b"))) == ["CDS -a"]

    def test_an_internal_listener_goes_between_its_cluster_and_its_destinations(
        self, world: DictWorld, talk: Talk
    ) -> None:
        world.cluster("v1")
        world.cluster("v2")
        world.put(LDS, "inner", refs=[Name(CDS, "v1"), Name(CDS, "v2")])
        world.put(CDS, "dialled", refs=[Name(LDS, "inner")])
        talk.ask(LDS)
        talk.ask(CDS)
        talk.settle()
        assert said(talk.ask(CDS, "dialled")) == ["CDS v1 v2", "LDS inner"]
        assert said(talk.settle()) == []
        assert said(talk.ask(EDS, "v1")) == ["EDS v1"]
        assert said(talk.settle()) == [], "the other destination has no endpoints yet"
        assert said(talk.ask(EDS, "v2")) == ["EDS v2"]
        assert said(talk.settle()) == ["CDS dialled"]

    def test_destinations_that_will_never_have_endpoints_hold_nothing_up(
        self, world: DictWorld, talk: Talk
    ) -> None:
        world.cluster("v1")
        world.drop(EDS, "v1")
        world.put(LDS, "inner", refs=[Name(CDS, "v1"), Name(CDS, "gone")])
        world.put(CDS, "dialled", refs=[Name(LDS, "inner")])
        talk.ask(LDS)
        talk.ask(CDS)
        talk.settle()
        talk.ask(CDS, "dialled")
        assert said(talk.settle()) == ["CDS dialled"]

    def test_a_host_waits_for_the_whole_way_behind_it(self, world: DictWorld, talk: Talk) -> None:
        world.cluster("v1")
        world.put(LDS, "inner", refs=[Name(CDS, "v1")])
        world.put(CDS, "dialled", refs=[Name(LDS, "inner")])
        world.put(VHDS, "80/a", refs=[Name(CDS, "dialled")])
        talk.ask(LDS)
        talk.ask(CDS)
        talk.settle()
        assert said(talk.ask(VHDS, "80/a")) == ["CDS v1", "LDS inner"]
        talk.settle()
        talk.ask(EDS, "v1")
        assert said(talk.settle()) == ["CDS dialled", "VHDS 80/a"]

    def test_a_cluster_does_not_wait_for_a_listener_that_was_refused(
        self, world: DictWorld, talk: Talk
    ) -> None:
        world.put(LDS, "inner")
        world.put(CDS, "dialled", refs=[Name(LDS, "inner")])
        talk.ask(LDS)
        talk.ask(CDS)
        talk.settle()
        first, second = talk.ask(CDS, "dialled")
        assert said([first, second]) == ["LDS inner", "CDS dialled"]
        talk.nack(first)
        world.put(CDS, "dialled", "2", refs=[Name(LDS, "inner")])
        assert said(talk.tell(Name(CDS, "dialled"))) == ["CDS dialled"]


class TestReconnect:
    def test_nothing_is_sent_again_that_is_held(self, world: DictWorld, talk: Talk) -> None:
        cluster = world.cluster("a")
        host = world.put(VHDS, "80/a", aliases=["80/a.x"], refs=[Name(CDS, "a")])
        endpoints = world.resources[Name(EDS, "a")]
        held = {"80/a": host.version, "80/_": "absent", "80/none": "absent"}
        assert talk.ask(CDS, held={"a": cluster.version}) == []
        assert talk.ask(EDS, "a", held={"a": endpoints.version}) == []
        assert talk.ask(VHDS, "*", "80/a.x", "80/none", held=held) == []

    def test_what_was_asked_and_never_answered_is_answered(self, world: DictWorld, talk: Talk) -> None:
        cluster = world.cluster("a")
        world.cluster("b")
        assert said(talk.ask(CDS, "*", "a", "b", "none", held={"a": cluster.version})) == ["CDS b -none"]

    def test_what_is_gone_is_removed(self, world: DictWorld, talk: Talk) -> None:
        assert said(talk.ask(CDS, held={"old": "1"})) == ["CDS -old"]
        assert said(talk.ask(VHDS, "*", held={"80/old": "1"})) == ["VHDS -80/old"]

    def test_what_changed_is_sent(self, world: DictWorld, talk: Talk) -> None:
        world.put(LDS, "inbound", "2")
        world.lists[LDS] = ("inbound",)
        assert said(talk.ask(LDS, held={"inbound": "1"})) == ["LDS inbound"]

    def test_listeners_may_come_before_clusters(self, world: DictWorld, talk: Talk) -> None:
        cluster = world.cluster("a")
        world.put(LDS, "inbound", "2", refs=[Name(CDS, "a")])
        world.lists[LDS] = ("inbound",)
        assert said(talk.ask(LDS, held={"inbound": "1"})) == ["LDS inbound"]
        assert talk.ask(CDS, held={"a": cluster.version}) == []


class TestNack:
    def test_one_bad_resource_is_found_and_the_others_are_delivered(
        self, world: DictWorld, talk: Talk
    ) -> None:
        for name in "abcd":
            world.put(EDS, name)
        bad = world.resources[Name(EDS, "c")]
        (response,) = talk.ask(EDS, *"abcd")
        talk.stream.events()
        second = talk.nack(response)
        assert said(second) == ["EDS a b"]
        third = talk.ack(*second)
        assert said(third) == ["EDS c d"]
        fourth = talk.nack(*third)
        assert said(fourth) == ["EDS c"]
        # There is more to send, so it gets a second chance after that.
        fifth = talk.nack(*fourth)
        assert said(fifth) == ["EDS d"]
        sixth = talk.ack(*fifth)
        assert said(sixth) == ["EDS c"]
        assert said(talk.nack(*sixth, error="c is bad")) == ["EDS -c"]
        assert Nacked(bad, "c is bad") in talk.stream.events()
        talk.settle()
        assert talk.stream.acknowledged(EDS).keys() == set("abd")

    def test_the_last_good_version_stays(self, world: DictWorld, talk: Talk) -> None:
        world.put(EDS, "a")
        talk.ask(EDS, "a")
        talk.settle()
        bad = world.put(EDS, "a", "bad")
        (response,) = talk.tell(Name(EDS, "a"))
        talk.stream.events()
        assert talk.nack(response, "no") == []
        assert talk.stream.events() == [Nacked(bad, "no")]
        assert talk.tell(Name(EDS, "a")) == []
        world.put(EDS, "a")
        assert talk.tell(Name(EDS, "a")) == []
        world.put(EDS, "a", "better")
        assert said(talk.tell(Name(EDS, "a"))) == ["EDS a"]

    def test_a_host_that_was_refused_is_answered_absent(self, world: DictWorld, talk: Talk) -> None:
        world.put(VHDS, "80/a", aliases=["80/a.x"])
        (response,) = talk.ask(VHDS, "80/a.x")
        assert said(talk.nack(response)) == ["VHDS (80/a.x)"]
        talk.settle()
        world.put(VHDS, "80/a", "2", aliases=["80/a.x"])
        assert said(talk.tell(Name(VHDS, "80/a"), Name(VHDS, "80/a.x"))) == ["VHDS 80/a"]

    def test_a_listed_resource_that_was_refused_is_sent_when_mended(
        self, world: DictWorld, talk: Talk
    ) -> None:
        world.put(LDS, "inbound", "bad")
        world.lists[LDS] = ("inbound",)
        (response,) = talk.ask(LDS)
        assert talk.nack(response) == []
        world.put(LDS, "inbound", "good")
        assert said(talk.tell(Name(LDS, "inbound"))) == ["LDS inbound"]

    def test_a_refused_security_resource_is_taken_away(self, world: DictWorld, talk: Talk) -> None:
        world.put(LDS, "inbound")
        world.lists[LDS] = ("inbound",)
        talk.ask(LDS)
        talk.settle()
        world.put(LDS, "inbound", "strict", security=True)
        (response,) = talk.tell(Name(LDS, "inbound"))
        assert said(talk.nack(response)) == ["LDS -inbound"]
        assert any(isinstance(e, Nacked) and e.resource.security for e in talk.stream.events())

    def test_unless_another_version_is_offered_at_once(self, world: DictWorld, talk: Talk) -> None:
        world.put(LDS, "inbound")
        world.lists[LDS] = ("inbound",)
        talk.ask(LDS)
        talk.settle()
        world.put(LDS, "inbound", "strict", security=True)
        (response,) = talk.tell(Name(LDS, "inbound"))
        talk.stream.receive(Request(LDS, nonce=response.nonce, error="no"))
        world.put(LDS, "inbound", "denies all", security=True)
        assert said(talk.tell(Name(LDS, "inbound"))) == ["LDS inbound"]

    def test_a_host_whose_cluster_was_refused_is_still_answered(self, world: DictWorld, talk: Talk) -> None:
        world.cluster("a")
        world.put(VHDS, "80/a", refs=[Name(CDS, "a")])
        talk.ask(CDS)
        talk.settle()
        cluster, host = talk.ask(VHDS, "80/a")
        talk.ack(host)
        talk.nack(cluster)
        assert said(talk.ask(CDS, "a")) == ["CDS -a"]
        talk.settle()
        assert said(talk.ask(VHDS, "80/a")) == ["VHDS 80/a"]

    def test_what_was_refused_for_a_conflict_is_tried_once_more(self, world: DictWorld, talk: Talk) -> None:
        world.put(VHDS, "80/a", "takes what b had")
        (first,) = talk.ask(VHDS, "80/a")
        world.put(VHDS, "80/b", "gives it up")
        talk.ask(VHDS, "80/b")
        talk.stream.events()
        second = talk.nack(first)
        assert said(second) == ["VHDS 80/b"]
        third = talk.ack(*second)
        assert said(third) == ["VHDS 80/a"]
        assert not any(isinstance(e, Nacked) for e in talk.stream.events())
        assert said(talk.nack(*third)) == ["VHDS (80/a)"]
        assert any(isinstance(e, Nacked) for e in talk.stream.events())

    def test_an_unknown_nonce_is_passed_over(self, world: DictWorld, talk: Talk) -> None:
        world.put(EDS, "a")
        talk.ask(EDS, "a")
        talk.stream.receive(Request(EDS, nonce="stale", error="bad"))
        assert talk.read() == []


class TestPace:
    def test_changes_during_an_unanswered_response_go_together(self, world: DictWorld, talk: Talk) -> None:
        for name in "abc":
            world.put(EDS, name)
        assert said(talk.ask(EDS, "a")) == ["EDS a"]
        assert talk.ask(EDS, "b") == []
        assert talk.ask(EDS, "c") == []
        assert said(talk.ack()) == ["EDS b c"]

    def test_a_name_that_changes_often_is_sent_once(self, world: DictWorld, talk: Talk) -> None:
        world.put(EDS, "a")
        talk.ask(EDS, "a")
        for n in range(5):
            last = world.put(EDS, "a", f"v{n}")
            assert talk.tell(Name(EDS, "a")) == []
        (response,) = talk.ack()
        assert response.resources == (last,)

    def test_large_answers_are_divided(self, world: DictWorld, talk: Talk) -> None:
        for name in "abcd":
            world.put(EDS, name, "x" * 2_000_000)
        assert said(talk.ask(EDS, *"abcd")) == ["EDS a b"]
        assert said(talk.ack()) == ["EDS c d"]


class TestLimit:
    def test_names_over_the_limit_are_answered_and_forgotten(self, world: DictWorld) -> None:
        talk = Talk(world, name_limit=2)
        talk.ask(VHDS, "80/a", "80/b")
        talk.settle()
        talk.stream.events()
        world.pending.add(Name(VHDS, "80/c"))
        assert said(talk.ask(VHDS, "80/c")) == ["VHDS (80/c)"]
        assert not any(isinstance(e, Wanted) for e in talk.stream.events())
        assert talk.stream.wanted(VHDS) == ("80/a", "80/b")

    def test_a_known_name_over_the_limit_is_served(self, world: DictWorld) -> None:
        talk = Talk(world, name_limit=1)
        world.put(EDS, "a")
        world.put(EDS, "b")
        assert said(talk.ask(EDS, "a", "b", "none")) == ["EDS a b -none"]
        talk.settle()
        world.put(EDS, "b", "2")
        assert said(talk.tell(Name(EDS, "b"))) == ["EDS b"]


def test_acknowledgements_are_events(world: DictWorld, talk: Talk) -> None:
    a = world.put(EDS, "a")
    talk.ask(EDS, "a", "none")
    talk.stream.events()
    talk.ack()
    assert talk.stream.events() == [Acked(a), Removed(Name(EDS, "none"))]
