from __future__ import annotations

import pytest

from retia.aio.clock import ManualClock
from retia.model.limit import Counted
from retia.ratelimit.counting import Hit, Verdict
from retia.ratelimit.memory import MemoryStore

START = 1_700_000_040.0
"""The beginning of a minute."""


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


@pytest.fixture
def store(clock: ManualClock) -> MemoryStore:
    return MemoryStore(clock)


def limit(amount: int = 10, window_s: int = 60, **marks: bool) -> Counted:
    return Counted("default/shop/all", amount, window_s, **marks)


def ask(store: MemoryStore, *hits: Hit) -> tuple[Verdict, ...]:
    return store.take_now(hits)


def test_lets_through_as_many_as_the_limit_says(store: MemoryStore) -> None:
    said = [ask(store, Hit(limit(3)))[0] for _ in range(5)]
    assert [each.over for each in said] == [False, False, False, True, True]
    assert [each.remaining for each in said] == [2, 1, 0, 0, 0]


def test_counts_values_apart(store: MemoryStore) -> None:
    assert not ask(store, Hit(limit(1), ("ann",)))[0].over
    assert not ask(store, Hit(limit(1), ("bob",)))[0].over
    assert ask(store, Hit(limit(1), ("ann",)))[0].over


def test_values_that_look_like_several_are_not_confused(store: MemoryStore) -> None:
    assert not ask(store, Hit(limit(1), ("a|b",)))[0].over
    assert not ask(store, Hit(limit(1), ("a", "b")))[0].over


def test_the_window_slides(store: MemoryStore, clock: ManualClock) -> None:
    clock.advance(50)
    ask(store, Hit(limit(10), amount=10))
    clock.advance(15)  # 5 s into the next minute: 10 * 55/60 = 9.2 are still in the last 60 s
    assert ask(store, Hit(limit(10)))[0].over
    clock.advance(2)  # 8.8
    assert not ask(store, Hit(limit(10)))[0].over
    clock.advance(120)
    assert ask(store, Hit(limit(10)))[0].remaining == 9


def test_says_when_there_is_room_again(store: MemoryStore, clock: ManualClock) -> None:
    ask(store, Hit(limit(10), amount=10))
    refused = ask(store, Hit(limit(10)))[0]
    assert refused.over
    clock.advance(refused.reset_s)
    assert not ask(store, Hit(limit(10)))[0].over


def test_a_refused_hit_is_not_counted(store: MemoryStore, clock: ManualClock) -> None:
    ask(store, Hit(limit(2), amount=2))
    for _ in range(100):
        assert ask(store, Hit(limit(2)))[0].over
    clock.advance(120)
    assert ask(store, Hit(limit(2)))[0].remaining == 1


def test_if_one_limit_refuses_none_counts(store: MemoryStore) -> None:
    narrow = Hit(Counted("default/shop/narrow", 1, 60))
    wide = Hit(Counted("default/shop/wide", 10, 60))
    ask(store, narrow, wide)
    for _ in range(5):
        assert [each.over for each in ask(store, narrow, wide)] == [True, False]
    assert ask(store, wide)[0].remaining == 8


def test_shadow_counts_and_holds_nobody_back(store: MemoryStore) -> None:
    shadow = Hit(limit(1, shadow=True))
    other = Hit(Counted("default/shop/other", 10, 60))
    ask(store, shadow, other)
    said = ask(store, shadow, other)
    assert [each.over for each in said] == [True, False]
    assert said[1].remaining == 8


def test_a_clock_that_goes_back_gives_nothing_away(store: MemoryStore, clock: ManualClock) -> None:
    ask(store, Hit(limit(1)))
    clock.advance(-120)
    assert ask(store, Hit(limit(1)))[0].over


def test_forgets_what_says_nothing_any_more(store: MemoryStore, clock: ManualClock) -> None:
    for n in range(100):
        ask(store, Hit(limit(), (str(n),)))
    clock.advance(60)
    store.sweep()
    assert len(store) == 100
    clock.advance(60)
    store.sweep()
    assert len(store) == 0


def test_the_number_of_counters_is_bounded(clock: ManualClock) -> None:
    store = MemoryStore(clock, most=10)
    for n in range(100):
        ask(store, Hit(limit(), (str(n),)))
    assert len(store) == 10
