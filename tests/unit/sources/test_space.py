"""One space as a small key-value store."""

from __future__ import annotations

from retia.sources.memory import MemoryStore
from retia.sources.space import Space


def test_compare_and_set_tells_whether_it_was() -> None:
    space = Space(MemoryStore(), "s")
    assert space.read("a") is None
    assert space.compare_and_set("a", b"1", 0)
    assert not space.compare_and_set("a", b"2", 0)
    assert space.read("a") == (b"1", 1)
    assert space.compare_and_set("a", None, 1)
    assert space.read("a") is None


def test_set_overwrites_and_items_lists() -> None:
    space = Space(MemoryStore(), "s")
    space.set("b", b"1")
    space.set("a", b"2")
    space.set("b", b"3")
    assert [(k, v) for k, v, _ in space.items()] == [("a", b"2"), ("b", b"3")]
    space.set("a", None)
    assert [k for k, _, _ in space.items()] == ["b"]
