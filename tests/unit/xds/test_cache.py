"""The tracked cache: what is recomputed, what is shared, and that it never differs from a full build."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from retia.model.ids import HostId, Namespace, ProxyId
from retia.model.mesh import Proxy, ProxyKind
from retia.model.resource import Built, Name, TypeUrl
from retia.model.snapshot import PlainView, Snapshot, View
from retia.xds.cache import Engine
from retia.xds.stream import LISTED
from retia.xds.wire import encode


def proxy(namespace: str = "default", host: str = "h1") -> Proxy:
    return Proxy(ProxyId(f"{namespace}/{host}"), ProxyKind.SIDECAR, Namespace(namespace), "sa", HostId(host))


def doubled(view: View, key: str) -> int:
    """A query with an early cut-off: only the parity of the fact comes through."""
    value: int = view.fact("number", key) or 0
    return value % 2


def in_namespace(view: View, key: str) -> str:
    return f"{key} of {view.proxy('namespace')}"


def build(view: View, name: Name) -> Built:
    kind, _, key = name.name.partition("/")
    if kind == "fact":
        value = view.fact("text", key)
        return Built(name.name, None if value is None else str(value).encode())
    if kind == "parity":
        return Built(name.name, str(view.query(doubled, key)).encode())
    if kind == "own":
        return Built(name.name, view.query(in_namespace, key).encode())
    if kind == "branch":
        side = view.proxy("host") if view.fact("text", "switch") else view.fact("text", "other")
        return Built(name.name, f"{side} {view.query(doubled, key)}".encode())
    raise ValueError(f"no builder for {kind}")


def listed(view: View, type_url: TypeUrl) -> tuple[str, ...]:
    return view.index("all", "")


def cluster(name: str) -> Name:
    return Name(TypeUrl.CLUSTER, name)


class World:
    """An engine and the snapshot under it."""

    def __init__(self, **facts: Any) -> None:
        self.snapshot, _ = Snapshot().with_changes(self._keys(facts))
        self.engine = Engine(self.snapshot, build, listed)

    @staticmethod
    def _keys(facts: dict[str, Any]) -> dict[tuple[str, ...], Any]:
        return {tuple(k.split("__")): v for k, v in facts.items()}

    def change(self, **facts: Any) -> frozenset[Name]:
        self.snapshot, changed = self.snapshot.with_changes(self._keys(facts))
        return self.engine.update(self.snapshot, changed)

    def built(self) -> int:
        return self.engine.counters.resources_built


def test_equal_reads_share_one_result_between_proxies() -> None:
    world = World(text__a="x")
    first = world.engine.resource(proxy("one"), cluster("fact/a"))
    assert world.engine.resource(proxy("two"), cluster("fact/a")) is first
    assert world.built() == 1


def test_an_attribute_that_was_read_separates_proxies() -> None:
    world = World()
    one = world.engine.resource(proxy("one"), cluster("own/k"))
    two = world.engine.resource(proxy("two"), cluster("own/k"))
    assert one.version != two.version
    assert world.engine.resource(proxy("one", host="h2"), cluster("own/k")) is one
    assert world.built() == 2


def test_a_change_names_only_what_read_the_fact() -> None:
    world = World(text__a="x", text__b="y")
    world.engine.resource(proxy(), cluster("fact/a"))
    world.engine.resource(proxy(), cluster("fact/b"))
    assert world.change(text__a="z") == {cluster("fact/a")}
    assert world.change(text__unread=1) == frozenset()


def test_absence_is_a_read() -> None:
    world = World()
    assert not world.engine.resource(proxy(), cluster("fact/a")).exists
    assert world.change(text__a="now") == {cluster("fact/a")}
    assert world.engine.resource(proxy(), cluster("fact/a")).exists


def test_a_query_with_an_equal_result_cuts_the_recomputation_off() -> None:
    world = World(number__n=2)
    before = world.engine.resource(proxy(), cluster("parity/n"))
    assert world.change(number__n=4) == {cluster("parity/n")}
    assert world.engine.resource(proxy(), cluster("parity/n")) is before
    assert world.built() == 1


def test_the_list_of_names_is_reported_when_it_changes() -> None:
    world = World()
    assert world.engine.listed(proxy(), TypeUrl.LISTENER) == ()
    assert world.change(index__all__=("a",)) == {Name(TypeUrl.LISTENER, LISTED)}
    assert world.engine.listed(proxy(), TypeUrl.LISTENER) == ("a",)


def test_a_builder_that_raises_costs_only_its_own_resource() -> None:
    world = World(text__a="x")
    broken = world.engine.resource(proxy(), cluster("nonsense/a"))
    assert not broken.exists
    assert [f.code for f in broken.findings] == ["RT0401"]
    assert world.engine.resource(proxy(), cluster("fact/a")).exists


def test_a_query_that_raised_is_asked_again_when_its_reads_change() -> None:
    def fragile(view: View, key: str) -> str:
        if view.fact("text", key) == "bad":
            raise ValueError("bad text")
        return "good"

    def with_fragile(view: View, name: Name) -> Built:
        return Built(name.name, view.query(fragile, "a").encode())

    snapshot, _ = Snapshot().with_changes({("text", "a"): "bad"})
    engine = Engine(snapshot, with_fragile, listed)
    assert not engine.resource(proxy(), cluster("c")).exists
    snapshot, changed = snapshot.with_changes({("text", "a"): "fine"})
    assert engine.update(snapshot, changed) == {cluster("c")}
    assert engine.resource(proxy(), cluster("c")).exists


def test_old_values_of_a_fact_leave_nothing_behind() -> None:
    world = World(text__a=0)
    for value in range(1, 50):
        world.change(text__a=value)
        world.engine.resource(proxy(), cluster("fact/a"))
    root = world.engine._resources[cluster("fact/a")].root
    assert root is not None
    assert root.children is None  # type: ignore[union-attr]


def test_trimmed_names_are_forgotten_with_their_queries() -> None:
    world = World(number__n=1, text__a="x")
    world.engine.resource(proxy(), cluster("parity/n"))
    world.engine.resource(proxy(), cluster("fact/a"))
    assert world.engine.trim({cluster("fact/a")}) == 1
    assert world.change(number__n=2) == frozenset()
    assert world.change(text__a="y") == {cluster("fact/a")}


NAMES = st.sampled_from(["fact/a", "fact/b", "parity/a", "own/a", "branch/a", "branch/b", "nonsense/x"])
PROXIES = st.builds(proxy, st.sampled_from(["one", "two"]), st.sampled_from(["h1", "h2"]))
CHANGES = st.dictionaries(
    st.sampled_from(["text__a", "text__b", "text__switch", "text__other", "number__a", "number__b"]),
    st.one_of(st.none(), st.integers(0, 4)),
)
STEPS = st.lists(st.one_of(CHANGES, st.tuples(PROXIES, NAMES)), max_size=40)


@given(STEPS)
def test_incremental_equals_full(steps: list[Any]) -> None:
    world = World()
    held: dict[tuple[Proxy, Name], str] = {}
    for step in steps:
        if isinstance(step, dict):
            affected = world.change(**step)
            for who, name in held:
                if name in affected:
                    held[who, name] = world.engine.resource(who, name).version
        else:
            who, name = step[0], cluster(step[1])
            held[who, name] = world.engine.resource(who, name).version
        for (who, name), version in held.items():
            if name.name.startswith("nonsense"):
                continue
            full = encode(name.type, build(PlainView(world.snapshot, who), name))
            assert version == full.version, name
