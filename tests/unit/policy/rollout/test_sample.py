from __future__ import annotations

import pytest

from retia.policy.rollout import Sample
from retia.policy.rollout.sample import Bin


def test_nothing_asked_is_no_failure_and_has_no_time() -> None:
    assert Sample().success_percent == 100
    assert Sample().percentile_s(95) is None


def test_success() -> None:
    assert Sample(200, 3).success_percent == 98.5


@pytest.mark.parametrize(
    ("percent", "seconds"), [(50, 0.010556), (90, 0.011), (91, 0.1), (95, 0.14), (99.9, 0.189)]
)
def test_percentiles_are_found_within_their_bin(percent: float, seconds: float) -> None:
    sample = Sample(100, 0, (Bin(10.0, 1.0, 90), Bin(90.0, 100.0, 10)))
    assert sample.percentile_s(percent) == pytest.approx(seconds, rel=1e-4)


def test_samples_add_up() -> None:
    one = Sample(10, 1, (Bin(10, 1, 10),))
    two = Sample(5, 0, (Bin(10, 1, 3), Bin(2, 0.1, 2)))
    assert one.plus(two) == Sample(15, 1, (Bin(2, 0.1, 2), Bin(10, 1, 13)))


def test_what_came_since() -> None:
    earlier = Sample(10, 1, (Bin(10, 1, 10),))
    later = Sample(25, 1, (Bin(10, 1, 10), Bin(20, 1, 15)))
    assert later.since(earlier) == Sample(15, 0, (Bin(20, 1, 15),))


def test_a_proxy_that_began_anew_counts_from_zero() -> None:
    assert Sample(3, 1).since(Sample(10, 1)) == Sample(3, 1)
