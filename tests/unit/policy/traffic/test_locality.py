"""How near endpoints are."""

from __future__ import annotations

from retia.model.ids import HostId
from retia.model.mesh import LocalityRules
from retia.policy.traffic.locality import Near, dense, matches, parts

HERE = "eu/a/1"
NEAREST = LocalityRules()


def far(locality: str, rules: LocalityRules = NEAREST, **labels: str) -> int:
    mine = (("tier", "gold"), ("topology.kubernetes.io/region", "eu"))
    return Near(rules, HERE, mine, failover=True).priority(
        locality, tuple(sorted(labels.items())), HostId("h")
    )


def test_the_own_place_comes_first_then_zone_region_and_the_rest() -> None:
    assert [far(place) for place in ("eu/a/1", "eu/a/2", "eu/b/1", "us/a/1", "")] == [0, 1, 2, 3, 3]


def test_a_failover_region_goes_before_other_regions() -> None:
    rules = LocalityRules(failover=(("eu", "us"),))

    assert [far(place, rules) for place in ("us/x", "asia/x")] == [3, 4]


def test_labels_count_from_the_first_on() -> None:
    rules = LocalityRules(priority=("tier", "topology.kubernetes.io/region"))

    assert far("eu/z", rules, tier="gold") == 0
    assert far("us/z", rules, tier="gold") == 1
    assert far("eu/z", rules, tier="lead") == 2


def test_a_label_may_have_a_value_of_its_own() -> None:
    assert far("eu", LocalityRules(priority=("tier=lead",)), tier="lead") == 0


def test_regions_order_what_labels_leave_alike() -> None:
    rules = LocalityRules(priority=("tier",), failover=(("eu", "us"),))
    places = [far("us/a", rules, tier="gold"), far("asia/a", rules, tier="gold"), far("eu/a/1", rules)]

    assert places == sorted(places)
    assert len(set(places)) == 3


def test_shares_are_divided_among_the_localities_that_a_rule_means() -> None:
    rules = LocalityRules(distribute=(("eu/a/*", (("eu/*", 80), ("us/*", 20))),))
    near = Near(rules, HERE, (), failover=False)

    assert near.share({"eu/a/1": 3, "eu/b/1": 1, "us/x": 2, "asia/x": 9}) == {
        "eu/a/1": 60,
        "eu/b/1": 20,
        "us/x": 20,
    }
    assert Near(rules, "us/a", (), failover=False).share({"eu/a/1": 1}) is None


def test_localities_match_by_their_starts() -> None:
    assert matches(HERE, "*")
    assert matches(HERE, "eu")
    assert matches(HERE, "eu/a/*")
    assert not matches(HERE, "eu/b/*")
    assert not matches("", "eu")


def test_priorities_have_no_gaps() -> None:
    assert dense([5, 0, 15, 5]) == {0: 0, 5: 1, 15: 2}


def test_parts_that_are_not_said_are_empty() -> None:
    assert parts("eu") == ("eu", "", "")
    assert parts("") == ("", "", "")
