from __future__ import annotations

from retia.aio.clock import ManualClock, SystemClock


def test_a_manual_clock_stands_still_until_told() -> None:
    clock = ManualClock()
    before = clock.now(), clock.monotonic()
    assert (clock.now(), clock.monotonic()) == before
    clock.advance(5)
    assert (clock.now(), clock.monotonic()) == (before[0] + 5, before[1] + 5)


def test_the_machines_clock_goes_forward() -> None:
    clock = SystemClock()
    assert clock.now() > 1_600_000_000
    assert clock.monotonic() <= clock.monotonic()
