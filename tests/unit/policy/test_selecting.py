"""Who is selected by whom."""

from __future__ import annotations

from retia.model.ids import Namespace
from retia.policy.selecting import Labelled, Selectors

HERE, THERE = Namespace("default"), Namespace("other")
A1, B2 = ("a", "1"), ("b", "2")


def test_a_selector_selects_what_has_all_its_pairs_in_its_namespace() -> None:
    selectors: Selectors[str] = Selectors()
    selectors.put("both", HERE, (A1, B2))
    selectors.put("one", HERE, (B2,))
    selectors.put("nobody", HERE, ())

    assert sorted(selectors.matching(HERE, (A1, B2))) == ["both", "one"]
    assert list(selectors.matching(HERE, (B2,))) == ["one"]
    assert list(selectors.matching(THERE, (A1, B2))) == []

    selectors.remove("one")
    assert list(selectors.matching(HERE, (B2,))) == []


def test_things_are_found_by_what_selects_them() -> None:
    things: Labelled[str] = Labelled()
    things.put("x", HERE, (A1, B2))
    things.put("y", HERE, (A1,))

    assert sorted(things.selected(HERE, (A1,))) == ["x", "y"]
    assert things.selected(HERE, (A1, B2)) == ["x"]
    assert things.selected(HERE, ()) == []

    things.put("x", HERE, (B2,))
    assert things.selected(HERE, (A1,)) == ["y"]
    things.remove("y")
    assert things.selected(HERE, (A1,)) == []
