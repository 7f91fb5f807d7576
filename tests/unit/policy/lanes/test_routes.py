"""Lanes laid over rules, asked of the routes that come of it."""

from __future__ import annotations

import re

import pytest

from retia.policy.lanes import MAX_LANES
from retia.policy.lanes.routes import BAGGAGE
from tests.support.world import Mesh, World, fqdn

LANE = """
apiVersion: retia.dev/v1alpha1
kind: TrafficLane
metadata: {name: alice}
spec: %s
"""
REVIEWS, RATINGS = fqdn("reviews"), fqdn("ratings")
VERSIONS = "{versions: {reviews: {version: v2}}}"


def world(spec: str = "{}", *texts: str) -> World:
    made = World().service("reviews", versions=("v1", "v2")).service("ratings")
    return made.apply("\n---\n".join((LANE % spec, *texts)))


def taken(mesh: Mesh, headers: dict[str, str], name: str = "9080/reviews:9080") -> list[str]:
    """The subsets (or hosts, of other services) that a request with these headers goes to."""
    for route in mesh.virtual_host(name).routes:
        if route.match.HasField("runtime_fraction"):
            continue
        if all(_holds(header, headers) for header in route.match.headers):
            if route.route.cluster:
                return [route.route.cluster.split("|", 2)[2]]
            return [c.name.split("|", 2)[2] for c in route.route.weighted_clusters.clusters]
    raise AssertionError("no route")


def _holds(header: object, headers: dict[str, str]) -> bool:
    value = headers.get(header.name)  # type: ignore[attr-defined]
    invert = header.invert_match  # type: ignore[attr-defined]
    if value is None:
        if not header.treat_missing_header_as_empty:  # type: ignore[attr-defined]
            return False
        value = ""
    wanted = header.string_match  # type: ignore[attr-defined]
    if wanted.exact:
        found = value == wanted.exact
    elif wanted.prefix:
        found = value.startswith(wanted.prefix)
    else:
        found = re.fullmatch(wanted.safe_regex.regex, value) is not None
    return bool(found != invert)


@pytest.mark.parametrize(
    "baggage",
    [
        "retia-lane=alice",
        "a=b,retia-lane=alice",
        "a=b , retia-lane = alice ;prop=1,c=d",
        "retia-lane=alice;x",
        "retia-lane=alice,retia-lane=bob",
    ],
)
def test_requests_of_a_lane_go_to_its_version(baggage: str) -> None:
    assert taken(world(VERSIONS).client("web"), {BAGGAGE: baggage}) == [f"lane~alice|{REVIEWS}"]


@pytest.mark.parametrize(
    "baggage", ["", "retia-lane=alicex", "xretia-lane=alice", "a=retia-lane=alice", "retia-lane=bob", "alice"]
)
def test_other_requests_go_to_the_baseline(baggage: str) -> None:
    assert taken(world(VERSIONS).client("web"), {BAGGAGE: baggage}) == [f"|{REVIEWS}"]


def test_a_service_without_a_lane_version_serves_the_lane_too() -> None:
    mesh = world(VERSIONS).client("web")
    assert taken(mesh, {BAGGAGE: "retia-lane=alice"}, "9080/ratings:9080") == [f"|{RATINGS}"]
    assert len(mesh.virtual_host("9080/ratings:9080").routes) == 1


def test_a_lane_version_that_is_not_there_falls_back() -> None:
    mesh = world("{versions: {reviews: {version: v9}}}").client("web")
    assert taken(mesh, {BAGGAGE: "retia-lane=alice"}) == [f"|{REVIEWS}"]


def labelled(spec: str = "{}", *texts: str) -> World:
    return world(spec, *texts).service("reviews", versions=("dev",), **{"retia.dev/lane": "alice"})


def test_labelled_instances_are_the_lanes_and_nobody_elses() -> None:
    mesh = labelled().client("web")
    assert taken(mesh, {BAGGAGE: "retia-lane=alice"}) == [f"lane~alice|{REVIEWS}"]
    assert mesh.addresses(f"outbound|9080|lane~alice|{REVIEWS}") == ["127.64.0.4:15006"]
    assert mesh.addresses(f"outbound|9080||{REVIEWS}") == ["127.64.0.1:15006", "127.64.0.2:15006"]


def test_labelled_instances_come_before_named_versions() -> None:
    mesh = labelled(VERSIONS).client("web")
    assert mesh.addresses(f"outbound|9080|lane~alice|{REVIEWS}") == ["127.64.0.4:15006"]


def test_an_instance_of_another_lane_is_in_no_version_of_this_one() -> None:
    made = world(VERSIONS).service("reviews", versions=("v2",), **{"retia.dev/lane": "bob"})
    assert made.client("web").addresses(f"outbound|9080|lane~alice|{REVIEWS}") == ["127.64.0.2:15006"]


def test_a_subset_leaves_labelled_instances_out_too() -> None:
    rule = """
kind: DestinationRule
metadata: {name: reviews}
spec:
  host: reviews
  subsets: [{name: dev, labels: {version: dev}}, {name: lane, labels: {retia.dev/lane: alice}}]
"""
    mesh = labelled("{}", rule).client("web")
    assert mesh.addresses(f"outbound|9080|dev|{REVIEWS}") == []
    assert mesh.addresses(f"outbound|9080|lane|{REVIEWS}") == ["127.64.0.4:15006"], "it asks for the lane"


RULES = """
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http:
    - match: [{headers: {end-user: {exact: jason}}}]
      route: [{destination: {host: ratings}}]
    - timeout: 3s
      route:
        - {destination: {host: reviews, subset: v1}, weight: 80}
        - {destination: {host: ratings}, weight: 20}
---
kind: DestinationRule
metadata: {name: reviews}
spec: {host: reviews, subsets: [{name: v1, labels: {version: v1}}]}
"""


def test_a_lane_takes_the_same_rule_and_another_destination() -> None:
    mesh = labelled("{}", RULES).client("web")
    on = {BAGGAGE: "retia-lane=alice"}
    assert taken(mesh, on | {"end-user": "jason"}) == [f"|{RATINGS}"], "the first rule still takes it"
    assert taken(mesh, on) == [f"lane~alice|{REVIEWS}", f"|{RATINGS}"]
    assert taken(mesh, {}) == [f"v1|{REVIEWS}", f"|{RATINGS}"]
    lane = mesh.virtual_host("9080/reviews:9080").routes[1].route
    assert lane.timeout.seconds == 3


ENTRY = """
match:
    - {headers: {x-tester: {exact: alice}}}
    - {cookies: {who: {exact: a.b}}}
    - {user: {header: X-User, values: [alice, "a.l"]}}
  entry: {service: reviews}
  versions: {reviews: {version: v2}}
"""


@pytest.mark.parametrize(
    ("headers", "enters"),
    [
        ({"x-tester": "alice"}, True),
        ({"x-tester": "alicex"}, False),
        ({"cookie": "a=1; who=a.b; c=d"}, True),
        ({"cookie": "who=axb"}, False),
        ({"cookie": "xwho=a.b"}, False),
        ({"x-user": "a.l"}, True),
        ({"x-user": "axl"}, False),
        ({"x-user": "alice", BAGGAGE: "retia-lane=bob"}, False),
        ({"x-user": "alice", BAGGAGE: "other=1"}, True),
    ],
)
def test_the_entry_puts_requests_on_a_lane(headers: dict[str, str], enters: bool) -> None:
    mesh = world("\n  " + ENTRY.strip()).client("web")
    assert taken(mesh, headers) == ([f"lane~alice|{REVIEWS}"] if enters else [f"|{REVIEWS}"])


def test_the_entry_writes_the_lane_also_where_the_entry_has_no_version_of_it() -> None:
    mesh = world("{match: [{}], entry: {service: ratings}}").client("web")
    first = mesh.virtual_host("9080/ratings:9080").routes[0]
    assert b"alice" in first.typed_per_filter_config["retia.filters.http.lane"].value
    assert first.route.cluster == f"outbound|9080||{RATINGS}"
    assert "retia.filters.http.lane" in str(mesh.listener("outbound-http"))


def test_a_percentage_of_requests() -> None:
    mesh = world("{match: [{percentage: 12.5}], entry: {service: ratings}}").client("web")
    fraction = mesh.virtual_host("9080/ratings:9080").routes[0].match.runtime_fraction.default_value
    assert fraction.numerator == 125_000


def test_without_an_entry_service_only_gateways_put_requests_on_a_lane() -> None:
    mesh = world("{match: [{headers: {x-tester: {exact: alice}}}]}").client("web")
    assert len(mesh.virtual_host("9080/reviews:9080").routes) == 1
    assert "retia.filters.http.lane" not in str(mesh.listener("outbound-http"))


def test_the_number_of_lanes_is_bounded() -> None:
    many = "\n---\n".join(
        (LANE % "{match: [{}], entry: {service: ratings}}").replace("name: alice", f"name: lane-{n}")
        for n in range(MAX_LANES + 5)
    )
    made = World().service("ratings").apply(many)
    assert len(made.client("web").virtual_host("9080/ratings:9080").routes) == MAX_LANES + 1


def test_the_older_of_two_lanes_of_one_name_counts() -> None:
    second = (LANE % "{versions: {reviews: {version: v1}}}").replace(
        "name: alice", "name: alice, namespace: b"
    )
    mesh = world(VERSIONS, second).client("web")
    assert mesh.addresses(f"outbound|9080|lane~alice|{REVIEWS}") == ["127.64.0.2:15006"]
