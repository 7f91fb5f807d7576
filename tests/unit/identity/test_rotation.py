"""When certificates are renewed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retia.identity.profiles import BACKDATE, SHORTEST_LIFETIME, leaf
from retia.identity.rotation import Life, is_due, renew_at, retry_after_s, skew_problem

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
DAY = Life(*leaf("workload").validity(NOW))
CHANCE = st.floats(0, 1, exclude_max=True)


def test_it_is_renewed_at_half_life_at_the_latest() -> None:
    assert DAY.issued == NOW
    assert renew_at(DAY, 0.0) == NOW + timedelta(hours=12)
    assert renew_at(DAY, 0.5) == NOW + timedelta(hours=10.8)


@given(CHANCE)
def test_chance_spreads_renewals_over_a_tenth_of_the_life(jitter: float) -> None:
    assert NOW + timedelta(hours=9.6) <= renew_at(DAY, jitter) <= NOW + timedelta(hours=12)


@pytest.mark.parametrize(
    ("after", "due"),
    [
        (timedelta(0), False),
        (timedelta(hours=11, minutes=59), False),
        (timedelta(hours=12), True),
        (timedelta(days=3), True),
        (-timedelta(minutes=9), False),
        (-timedelta(minutes=11), True),
    ],
    ids=["fresh", "before half-life", "half-life", "expired", "clock a little behind", "not yet valid"],
)
def test_when_it_is_due(after: timedelta, due: bool) -> None:
    assert is_due(DAY, 0.0, NOW + after) is due


def test_the_shortest_life_is_renewed_within_it() -> None:
    life = Life(*leaf("workload", SHORTEST_LIFETIME).validity(NOW))
    assert NOW < renew_at(life, 0.9) < renew_at(life, 0.0) == NOW + SHORTEST_LIFETIME / 2


def test_another_authoritys_short_certificate_counts_from_its_beginning() -> None:
    life = Life(NOW, NOW + BACKDATE / 2)
    assert renew_at(life, 0.0) == NOW + BACKDATE / 4


def test_what_remains() -> None:
    assert DAY.remaining(NOW) == timedelta(days=1)
    assert DAY.remaining(NOW + timedelta(days=2)) < timedelta(0)
    assert not DAY.expired(NOW)
    assert DAY.expired(DAY.not_after)


def test_attempts_are_repeated_slower_and_slower_up_to_a_minute() -> None:
    assert [retry_after_s(n, 0.0) for n in (1, 2, 3, 7, 8, 1000)] == [1, 2, 4, 60, 60, 60]


@given(st.integers(0, 10_000), CHANCE)
def test_a_wait_is_never_nothing_and_never_endless(attempt: int, jitter: float) -> None:
    assert 0.5 <= retry_after_s(attempt, jitter) <= 60


@pytest.mark.parametrize(
    ("ahead", "words"),
    [(0, ""), (299, ""), (-299, ""), (301, "301s ahead of"), (-4000, "4000s behind")],
)
def test_skew_is_reported_beyond_five_minutes(ahead: int, words: str) -> None:
    problem = skew_problem(NOW + timedelta(seconds=ahead), NOW)
    assert words in problem
    assert bool(problem) is bool(words)
