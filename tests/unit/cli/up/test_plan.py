"""The difference of two mesh files."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from retia.cli.up.plan import make_plan
from retia.cli.up.spec import PublishSpec, Slot, Spec

SLOTS = st.builds(
    Slot,
    st.sampled_from(["default", "shop"]),
    st.sampled_from(["a", "b"]),
    st.sampled_from(["", "v1"]),
    st.integers(0, 2),
)
MESHES = st.dictionaries(SLOTS, st.sampled_from(["x", "y"])).map(
    lambda found: {slot: Spec(slot, (command,), "/") for slot, command in found.items()}
)


@given(MESHES, MESHES)
def test_carrying_out_the_plan_gives_what_is_wanted(
    running: dict[Slot, Spec], wanted: dict[Slot, Spec]
) -> None:
    plan = make_plan(running, wanted)
    result = dict(running)
    for slot in plan.stop:
        del result[slot]
    for spec in plan.start:
        assert spec.slot not in result
        result[spec.slot] = spec
    for spec in plan.replace:
        assert result[spec.slot] != spec
        result[spec.slot] = spec
    assert result == wanted


@given(MESHES)
def test_nothing_changes_nothing(mesh: dict[Slot, Spec]) -> None:
    assert make_plan(mesh, dict(mesh)).empty


def test_words() -> None:
    slot = Slot("default", "web", "", 0)
    spec = Spec(slot, ("x",), "/")
    assert str(make_plan({}, {slot: spec})) == "1 to start"
    assert str(make_plan({slot: spec}, {slot: replace(spec, cwd="/tmp")})) == "1 to replace"
    assert str(make_plan({slot: spec}, {})) == "1 to stop"
    publish = (PublishSpec("127.0.0.1", 1, "web.default", 80),)
    assert str(make_plan({}, {}, (), publish)) == "published ports change"
    assert str(make_plan({}, {}, publish, publish)) == "nothing to change"
