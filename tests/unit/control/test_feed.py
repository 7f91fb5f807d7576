"""What goes to an agent for one proxy."""

from __future__ import annotations

import pytest

from retia.control.feed import Delivery, Feed
from retia.control.hub import Hub
from retia.model.ids import HostId, Namespace, ProxyId
from retia.model.mesh import Proxy, ProxyKind
from retia.model.resource import Built, Name, TypeUrl
from retia.model.snapshot import Snapshot, View
from retia.xds.cache import Engine
from retia.xds.wire import ABSENT_VERSION

CDS, EDS, LDS, VHDS = TypeUrl.CLUSTER, TypeUrl.ENDPOINTS, TypeUrl.LISTENER, TypeUrl.VIRTUAL_HOST


def build(view: View, name: Name) -> Built:
    """A resource is a fact: ``(canonical name, content, aliases, refs, security)``."""
    fact = view.fact("resource", name.type.short, name.name)
    if fact is None:
        return Built(name.name, None)
    own, content, aliases, refs, security = fact
    return Built(own, content.encode(), aliases, refs, security=security)


def listed(view: View, type_url: TypeUrl) -> tuple[str, ...]:
    return view.index("listed", type_url.short)


class Scene:
    """A feed over facts that a test puts."""

    def __init__(self) -> None:
        self.engine = Engine(Snapshot(), build, listed)
        self.hub = Hub()
        self.withheld: set[str] = set()
        self.rung = 0
        self.feed = self.make()

    def make(self) -> Feed:
        proxy = Proxy(ProxyId("p"), ProxyKind.SIDECAR, Namespace("default"), "a", HostId("h"))
        return Feed(self.engine, self.hub, proxy, self.withheld, self.ring)

    def ring(self) -> None:
        self.rung += 1

    def put(
        self,
        kind: TypeUrl,
        name: str,
        content: str | None = "1",
        aliases: tuple[str, ...] = (),
        refs: tuple[Name, ...] = (),
        security: bool = False,
    ) -> None:
        fact = None if content is None else (name, content, aliases, refs, security)
        self.change({("resource", kind.short, n): fact for n in (name, *aliases)})

    def list(self, kind: TypeUrl, *names: str) -> None:
        self.change({("index", "listed", kind.short): names})

    def change(self, facts: dict[tuple[str, ...], object]) -> None:
        snapshot, changed = self.engine.snapshot.with_changes(facts)
        self.hub.notify(self.engine.update(snapshot, changed))

    def sent(self) -> str:
        return said(self.feed.collect())


def said(delivery: Delivery) -> str:
    return " ".join(
        [*(str(n) for n in delivery.resources), *(f"-{n}" for n in delivery.removed)],
    )


@pytest.fixture
def scene() -> Scene:
    made = Scene()
    made.sent()
    return made


def test_what_is_on_a_list_comes_unasked(scene: Scene) -> None:
    scene.put(LDS, "inbound")
    scene.list(LDS, "inbound")
    assert scene.sent() == "LDS inbound"
    scene.list(LDS)
    scene.put(LDS, "inbound", None)
    assert scene.sent() == "-LDS inbound"


def test_what_is_referred_to_goes_first(scene: Scene) -> None:
    scene.put(EDS, "a")
    scene.put(CDS, "a", refs=(Name(EDS, "a"),))
    scene.put(VHDS, "80/a", refs=(Name(CDS, "a"),))
    scene.feed.subscribe([Name(VHDS, "80/a")])
    assert scene.sent() == "EDS a CDS a VHDS 80/a"


def test_a_change_is_sent_once_and_only_if_it_is_one(scene: Scene) -> None:
    scene.put(EDS, "a")
    scene.feed.subscribe([Name(EDS, "a")])
    scene.sent()
    rung = scene.rung
    scene.put(EDS, "a", "2")
    assert scene.rung == rung + 1
    assert scene.sent() == "EDS a"
    scene.put(EDS, "b")
    scene.feed.changed([Name(EDS, "a")])
    assert scene.sent() == ""


def test_a_name_that_does_not_exist_is_said_so_and_pushed_when_it_comes(scene: Scene) -> None:
    scene.feed.subscribe([Name(VHDS, "80/a.x")])
    assert scene.sent() == "-VHDS 80/a.x"
    scene.put(VHDS, "80/a", aliases=("80/a.x",))
    assert scene.sent() == "VHDS 80/a"
    scene.change({("resource", "VHDS", n): None for n in ("80/a", "80/a.x")})
    assert scene.sent() == "-VHDS 80/a.x -VHDS 80/a"


def test_what_is_held_is_not_sent_again(scene: Scene) -> None:
    scene.put(EDS, "a")
    scene.put(EDS, "b")
    version = scene.engine.resource(scene.feed.proxy, Name(EDS, "a")).version
    scene.feed.hold({Name(EDS, "a"): version, Name(EDS, "b"): "old", Name(EDS, "c"): ABSENT_VERSION})
    assert scene.sent() == "EDS b"
    scene.feed.subscribe([Name(EDS, "a"), Name(EDS, "b"), Name(EDS, "c")])
    assert scene.sent() == ""


def test_what_is_held_and_gone_is_removed(scene: Scene) -> None:
    scene.feed.hold({Name(EDS, "a"): "1"})
    assert scene.sent() == "-EDS a"


def test_asking_twice_is_answered_twice(scene: Scene) -> None:
    scene.put(EDS, "a")
    scene.feed.subscribe([Name(EDS, "a")])
    scene.sent()
    scene.feed.subscribe([Name(EDS, "a")])
    assert scene.sent() == "EDS a"


def test_what_nobody_wants_any_more_is_left_alone(scene: Scene) -> None:
    scene.put(EDS, "a")
    scene.feed.subscribe([Name(EDS, "a")])
    scene.sent()
    scene.feed.unsubscribe([Name(EDS, "a")])
    scene.put(EDS, "a", "2")
    assert scene.sent() == ""


def test_learned_names_count_only_where_they_exist(scene: Scene) -> None:
    scene.put(VHDS, "80/a")
    scene.feed.add_learned([Name(VHDS, "80/a"), Name(VHDS, "80/gone")])
    assert scene.sent() == "VHDS 80/a"


def test_a_withheld_version_leaves_the_last_good_one(scene: Scene) -> None:
    scene.put(EDS, "a")
    scene.feed.subscribe([Name(EDS, "a")])
    scene.sent()
    snapshot, _ = scene.engine.snapshot.with_changes({("resource", "EDS", "a"): ("a", "bad", (), (), False)})
    bad = Engine(snapshot, build, listed).resource(scene.feed.proxy, Name(EDS, "a")).version
    scene.withheld.add(bad)
    scene.put(EDS, "a", "bad")
    assert scene.sent() == ""
    scene.put(EDS, "a", "mended")
    assert scene.sent() == "EDS a"


def test_a_withheld_version_is_absent_for_who_has_none(scene: Scene) -> None:
    scene.put(EDS, "a", "bad")
    scene.withheld.add(scene.engine.resource(scene.feed.proxy, Name(EDS, "a")).version)
    scene.feed.subscribe([Name(EDS, "a")])
    assert scene.sent() == "-EDS a"


def test_a_withheld_security_resource_is_taken_away(scene: Scene) -> None:
    scene.put(LDS, "inbound")
    scene.list(LDS, "inbound")
    scene.sent()
    fact = ("inbound", "strict", (), (), True)
    snapshot, _ = scene.engine.snapshot.with_changes({("resource", "LDS", "inbound"): fact})
    bad = Engine(snapshot, build, listed).resource(scene.feed.proxy, Name(LDS, "inbound")).version
    scene.withheld.add(bad)
    scene.put(LDS, "inbound", "strict", security=True)
    assert scene.sent() == "-LDS inbound"


def test_messages_are_bounded(scene: Scene) -> None:
    names = [f"e{n}" for n in range(1000)]
    scene.change({("resource", "EDS", n): (n, "x" * 10, (), (), False) for n in names})
    scene.feed.subscribe(Name(EDS, n) for n in names)
    sizes = []
    while scene.feed.dirty:
        sizes.append(len(scene.feed.collect().resources))
    assert sum(sizes) == 1000
    assert max(sizes) <= 256


def test_a_closed_feed_hears_nothing(scene: Scene) -> None:
    scene.put(EDS, "a")
    scene.feed.subscribe([Name(EDS, "a")])
    scene.sent()
    scene.feed.close()
    rung = scene.rung
    scene.put(EDS, "a", "2")
    assert scene.rung == rung
    assert Name(EDS, "a") not in scene.hub.names
