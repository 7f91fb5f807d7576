"""What a proxy may have: from the controller, from the standby copy, or for want of both."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from envoy.config.route.v3 import route_components_pb2
from envoy.service.discovery.v3 import discovery_pb2

from retia.agent.identity import Pair
from retia.agent.world import ProxyWorld, unknown
from retia.authority.keys import key_to_pem, make_key
from retia.authority.requests import make_request
from retia.model.resource import Built, Name, Resource, TypeUrl
from retia.xds.stream import LISTED
from retia.xds.wire import absent, encode
from tests.support.authorities import authority_in

CDS, EDS, LDS, VHDS, SDS = (
    TypeUrl.CLUSTER,
    TypeUrl.ENDPOINTS,
    TypeUrl.LISTENER,
    TypeUrl.VIRTUAL_HOST,
    TypeUrl.SECRET,
)


class Books:
    """A world, and what it wrote down."""

    def __init__(self) -> None:
        self.kept: dict[Name, Resource] = {}
        self.standby: dict[Name, Resource] = {}
        self.world = ProxyWorld(self.keep, self.drop, self.standby.get)

    def keep(self, resource: Resource) -> None:
        self.kept[Name(resource.type, resource.name)] = resource

    def drop(self, name: Name) -> None:
        self.kept.pop(name, None)

    def stand_by(self, resource: Resource) -> None:
        for spelling in (resource.name, *resource.aliases):
            self.standby[Name(resource.type, spelling)] = resource


@pytest.fixture
def books() -> Books:
    return Books()


def resource(
    kind: TypeUrl, name: str, content: str = "1", aliases: tuple[str, ...] = (), refs: tuple[Name, ...] = ()
) -> Resource:
    return encode(kind, Built(name, content.encode(), aliases, refs))


def held(world: ProxyWorld) -> list[str]:
    return [r.name for r in world.held()]


def test_what_the_controller_says_is_found_by_every_spelling(books: Books) -> None:
    host = resource(VHDS, "80/a.default", aliases=("80/a.default", "80/a"))
    changed = books.world.apply([host], [])
    assert changed == {Name(VHDS, "80/a.default"), Name(VHDS, "80/a"), Name(VHDS, LISTED)}
    assert books.world.get(Name(VHDS, "80/a")) == host
    assert books.kept == {Name(VHDS, "80/a.default"): host}


def test_the_same_again_changes_nothing(books: Books) -> None:
    host = resource(CDS, "c")
    books.world.apply([host], [])
    assert books.world.apply([host], []) == set()


def test_a_spelling_that_went_away_is_unknown_again(books: Books) -> None:
    books.world.apply([resource(VHDS, "80/a.default", aliases=("80/a",))], [])
    changed = books.world.apply([resource(VHDS, "80/a.default", "2")], [])
    assert Name(VHDS, "80/a") in changed
    assert books.world.get(Name(VHDS, "80/a")) is None


def test_what_was_removed_is_known_not_to_exist(books: Books) -> None:
    books.world.apply([resource(VHDS, "80/a.default", aliases=("80/a",)), resource(LDS, "l")], [])
    books.world.apply([], [Name(VHDS, "80/a.default"), Name(LDS, "l")])
    for name in (Name(VHDS, "80/a.default"), Name(VHDS, "80/a"), Name(LDS, "l")):
        found = books.world.get(name)
        assert found is not None
        assert not found.exists
    assert books.world.listed(LDS) is None
    assert books.kept == {}


def test_listeners_are_waited_for_and_hosts_are_not(books: Books) -> None:
    assert books.world.listed(LDS) is None
    assert books.world.listed(VHDS) == []
    assert books.world.listed(CDS) == ()
    books.world.apply([resource(LDS, "inbound"), resource(VHDS, "80/a"), absent(VHDS, "80/b")], [])
    assert books.world.listed(LDS) == ["inbound"]
    assert books.world.listed(VHDS) == ["80/a"]


def test_the_standby_copy_has_the_listener_behind_a_cluster(books: Books) -> None:
    books.stand_by(resource(CDS, "tcp|240.240.0.1:5432", refs=(Name(LDS, "240.240.0.1_5432"),)))
    books.stand_by(resource(LDS, "240.240.0.1_5432", refs=(Name(CDS, "v1"),)))
    books.stand_by(resource(CDS, "v1", refs=(Name(EDS, "v1"),)))
    books.stand_by(resource(EDS, "v1"))
    changed = books.world.answer_alone([Name(CDS, "tcp|240.240.0.1:5432")])
    assert {Name(LDS, "240.240.0.1_5432"), Name(CDS, "v1"), Name(EDS, "v1")} <= changed
    assert books.world.listed(LDS) == ["240.240.0.1_5432"]


def test_the_standby_copy_answers_with_all_that_is_referred_to(books: Books) -> None:
    books.stand_by(resource(VHDS, "80/a.default", aliases=("80/a",), refs=(Name(CDS, "c"),)))
    books.stand_by(resource(CDS, "c", refs=(Name(EDS, "c"),)))
    books.stand_by(resource(EDS, "c"))
    changed = books.world.answer_alone([Name(VHDS, "80/a")])
    assert {Name(CDS, "c"), Name(EDS, "c"), Name(VHDS, "80/a")} <= changed
    assert held(books.world) == ["c", "c", "80/a.default"]
    assert len(books.kept) == 3, "it is held from now on"


def test_what_nobody_knows_is_answered_and_not_kept(books: Books) -> None:
    wanted = [Name(VHDS, "80/a"), Name(CDS, "c")]
    books.world.answer_alone(wanted)
    host, cluster = (books.world.get(n) for n in wanted)
    assert host is not None
    assert host.exists
    assert cluster is not None
    assert not cluster.exists
    assert held(books.world) == []
    assert books.kept == {}
    assert set(wanted) <= books.world.subscriptions(), "the controller is asked when it is back"


@pytest.mark.parametrize("name", ["80/a.default", "80/a"], ids=["its name", "a spelling"])
def test_the_controllers_answer_replaces_a_provisional_one(books: Books, name: str) -> None:
    books.world.answer_alone([Name(VHDS, name)])
    real = resource(VHDS, "80/a.default", aliases=("80/a.default", "80/a"))
    changed = books.world.apply([real], [])
    assert Name(VHDS, name) in changed
    assert books.world.get(Name(VHDS, name)) == real
    assert held(books.world) == ["80/a.default"], "provisional no more"
    books.world.apply([], [Name(VHDS, "80/a.default")])
    found = books.world.get(Name(VHDS, name))
    assert found is not None
    assert not found.exists


def test_the_unknown_host_says_503() -> None:
    wire = discovery_pb2.Resource.FromString(unknown(Name(VHDS, "9080/reviews:9080")).wire)
    host = route_components_pb2.VirtualHost.FromString(wire.resource.value)
    assert (wire.name, list(wire.aliases)) == ("9080/reviews:9080", ["9080/reviews:9080"])
    assert (host.name, list(host.domains)) == ("9080/reviews:9080", ["reviews:9080"])
    assert host.routes[0].direct_response.status == 503


def test_secrets_are_the_proxys_own_and_stay_here(books: Books, tmp_path: Path) -> None:
    authority = authority_in(tmp_path)
    key = make_key()
    now = datetime(2030, 6, 1, 12, tzinfo=UTC)
    signed = authority.sign_workload(make_request(key), "default", "a", now)
    pair = Pair.make(signed.chain_pem, key_to_pem(key))
    changed = books.world.set_secrets(pair, authority.bundle_pem)
    assert changed == {Name(SDS, "default"), Name(SDS, "ROOTCA")}
    assert books.world.set_secrets(pair, authority.bundle_pem) == set()
    assert held(books.world) == []
    assert books.kept == {}
    assert books.world.subscriptions() == set()
    assert "PRIVATE" not in repr(pair)


def test_a_restart_finds_what_was_held(books: Books) -> None:
    books.world.apply([resource(CDS, "c"), resource(VHDS, "80/a", aliases=("80/b",))], [])
    again = Books()
    again.world.load(books.kept.values())
    assert held(again.world) == held(books.world)
    assert again.world.get(Name(VHDS, "80/b")) == books.world.get(Name(VHDS, "80/b"))


def test_a_refused_version_makes_way_for_the_one_before_on_disk_too(books: Books) -> None:
    good, bad = resource(CDS, "a", "good"), resource(CDS, "a", "bad")
    name = Name(CDS, "a")
    books.world.apply([good], [])
    books.world.accepted(good)
    books.world.apply([bad], [])
    assert name in books.world.refused(bad)
    assert books.world.get(name) == books.kept[name] == good


def test_an_accepted_version_is_not_gone_back_on(books: Books) -> None:
    first, second, third = (resource(CDS, "a", content) for content in ("1", "2", "3"))
    for version in (first, second):
        books.world.apply([version], [])
        books.world.accepted(version)
    books.world.apply([third], [])
    books.world.refused(third)
    assert books.world.get(Name(CDS, "a")) == second


def test_a_refused_first_version_has_none_before_it(books: Books) -> None:
    bad = resource(CDS, "a", "bad")
    books.world.apply([bad], [])
    assert books.world.refused(bad) == set()


def test_a_refused_security_version_is_not_taken_back(books: Books) -> None:
    old = resource(LDS, "inbound", "open")
    tight = encode(LDS, Built("inbound", b"tight", security=True))
    books.world.apply([old], [])
    books.world.accepted(old)
    books.world.apply([tight], [])
    assert books.world.refused(tight) == set()
    assert books.world.get(Name(LDS, "inbound")) == tight


def test_secrets_of_the_controller_are_given_and_not_written_down(books: Books) -> None:
    name = Name(SDS, "kubernetes://shop")
    resource = encode(SDS, Built(name.name, b"\n\x11kubernetes://shop"))
    assert name in books.world.apply([resource], [])
    assert books.world.get(name) == resource
    assert name not in books.kept
    assert resource not in books.world.held()
