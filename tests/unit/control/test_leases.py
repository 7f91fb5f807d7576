"""When a silent host is lost, with time as an argument."""

from __future__ import annotations

from retia.control.leases import Leases

PERIOD = 10.0


def leases(*hosts: str, at: float = 100.0) -> Leases:
    """Leases some time after the controller's start, all renewed at ``at``."""
    made = Leases(PERIOD, at - 50)
    for host in hosts:
        made.renew(host, at)
    return made


MANY = tuple(f"h{n}" for n in range(20))


def test_a_host_that_speaks_is_valid() -> None:
    made = leases("a")
    assert made.state("a", 109.9) == "valid"
    assert made.sweep(109.9) == []


def test_one_of_many_is_lost_after_its_lease() -> None:
    made = leases(*MANY)
    for host in MANY[1:]:
        made.renew(host, 105)
    assert made.sweep(109) == []
    assert made.sweep(110) == ["h0"]
    assert made.state("h0", 110) == "lapsed"


def test_many_at_once_are_held_for_one_period() -> None:
    made = leases(*MANY)
    assert made.sweep(110) == []
    assert made.held(110)
    assert made.reason == "20 of 20 hosts fell silent within 10 s"
    assert made.state("h0", 111) == "held"
    assert made.sweep(119.9) == []
    assert sorted(made.sweep(120)) == sorted(MANY)


def test_those_that_come_back_meanwhile_stay() -> None:
    made = leases(*MANY)
    made.sweep(110)
    for host in MANY[1:]:
        made.renew(host, 115)
    assert made.sweep(120) == ["h0"]


def test_a_share_just_within_the_bound_is_no_fault_of_ours() -> None:
    made = leases(*MANY)
    for host in MANY[3:]:
        made.renew(host, 105)
    assert len(made.sweep(110)) == 3


def test_lapses_spread_over_time_are_no_mass() -> None:
    made = leases(*MANY)
    now = 110.0
    for host in MANY:
        for other in MANY:
            if other > host:
                made.renew(other, now)
    assert not made.held(now)


def test_nothing_is_withdrawn_for_one_period_after_the_start() -> None:
    made = Leases(PERIOD, 100)
    made.remember("a")
    assert made.held(109.9)
    assert made.state("a", 105) == "held"
    assert made.sweep(109.9) == []
    assert made.sweep(110) == ["a"]


def test_a_remembered_host_that_returns_stays() -> None:
    made = Leases(PERIOD, 100)
    made.remember("a")
    made.renew("a", 108)
    assert made.sweep(111) == []


def test_a_host_that_said_good_bye_is_not_counted() -> None:
    made = leases("a", "b")
    made.drop("a")
    made.drop("b")
    assert made.sweep(200) == []
    assert not made.held(200)
