from __future__ import annotations

import pytest

from retia.aio.backoff import Backoff


def _longest(low: float, high: float) -> float:
    return high


def test_pauses_grow_up_to_the_limit() -> None:
    backoff = Backoff(0.1, 1.0, uniform=_longest)
    assert [round(backoff.next_s(), 3) for _ in range(5)] == [0.2, 0.4, 0.8, 1.0, 1.0]


def test_success_makes_them_short_again() -> None:
    backoff = Backoff(0.1, 1.0, uniform=_longest)
    for _ in range(5):
        backoff.next_s()
    backoff.reset()
    assert round(backoff.next_s(), 3) == 0.2


def test_they_differ() -> None:
    backoff = Backoff(0.1, 1.0)
    assert len({backoff.next_s() for _ in range(20)}) > 10


@pytest.mark.parametrize(("first_s", "limit_s", "factor"), [(0, 1, 2), (2, 1, 2), (0.1, 1, 0.5)])
def test_nonsense_is_refused(first_s: float, limit_s: float, factor: float) -> None:
    with pytest.raises(ValueError, match="backoff"):
        Backoff(first_s, limit_s, factor)
