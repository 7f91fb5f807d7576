from __future__ import annotations

import pytest

from retia.model.resource import TypeUrl
from retia.policy.arrange import arrange
from retia.policy.rollout.split import CANARY, STABLE
from retia.policy.routing.forms import HttpRule, Target, WeightedTarget
from tests.support.world import Mesh, World, fqdn

ROLLOUT = """
apiVersion: retia.dev/v1alpha1
kind: Rollout
metadata: {name: reviews}
spec:
  service: reviews
  stable: {labels: {version: v1}}
  canary: {labels: {version: v2}}
  steps: [{weight: 10}, {weight: 50}]
"""
HOST = fqdn("reviews")


def mesh(weight: int | None = 10, *texts: str) -> Mesh:
    world = (
        World()
        .service("reviews", versions=("v1", "v2", "v3"))
        .service("ratings")
        .apply("\n---\n".join((ROLLOUT, *texts)))
    )
    return world.rollout("reviews", weight).client("web")


def clusters(mesh: Mesh, name: str = "9080/reviews:9080", route: int = -1) -> dict[str, int]:
    """The subsets of a route's destinations with their shares in percent."""
    action = mesh.virtual_host(name).routes[route].route
    if action.cluster:
        return {action.cluster.split("|")[2]: 100}
    entries = action.weighted_clusters.clusters
    total = sum(e.weight.value for e in entries)
    return {e.name.split("|")[2]: e.weight.value * 100 // total for e in entries}


@pytest.mark.parametrize(
    ("weight", "expected"),
    [
        (None, {STABLE: 100}),
        (0, {STABLE: 100}),
        (10, {STABLE: 90, CANARY: 10}),
        (100, {CANARY: 100}),
    ],
)
def test_requests_for_the_service_are_split(weight: int | None, expected: dict[str, int]) -> None:
    assert clusters(mesh(weight)) == expected


def test_versions_are_chosen_by_labels_without_a_destination_rule() -> None:
    here = mesh()
    assert here.addresses(f"outbound|9080|{STABLE}|{HOST}") == ["127.64.0.1:15006"]
    assert here.addresses(f"outbound|9080|{CANARY}|{HOST}") == ["127.64.0.2:15006"]
    assert here.cluster(f"outbound|9080|{CANARY}|{HOST}").name


def test_another_service_is_not_split() -> None:
    assert clusters(mesh(), "9080/ratings:9080") == {"": 100}


def test_a_rule_without_subset_is_split_and_its_weights_kept() -> None:
    rule = """
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http:
    - route:
        - {destination: {host: reviews}, weight: 50}
        - {destination: {host: ratings}, weight: 50}
"""
    entries = mesh(10, rule).virtual_host("9080/reviews:9080").routes[0].route.weighted_clusters.clusters
    shares = {e.name: e.weight.value for e in entries}
    total = sum(shares.values())
    assert {name.split("|", 2)[2]: 100 * w / total for name, w in shares.items()} == {
        f"{STABLE}|{HOST}": 45,
        f"{CANARY}|{HOST}": 5,
        f"|{fqdn('ratings')}": 50,
    }


def test_a_rule_that_names_a_subset_is_meant() -> None:
    rules = """
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http: [{route: [{destination: {host: reviews, subset: v3}}]}]
---
kind: DestinationRule
metadata: {name: reviews}
spec:
  host: reviews
  subsets: [{name: v3, labels: {version: v3}}]
"""
    assert clusters(mesh(10, rules)) == {"v3": 100}


def test_a_subset_brings_its_traffic_policy() -> None:
    world = World().service("reviews", versions=("v1", "v2"))
    world.apply(
        """
apiVersion: retia.dev/v1alpha1
kind: Rollout
metadata: {name: reviews}
spec:
  service: reviews
  stable: {subset: v1}
  canary: {subset: v2}
  steps: [{weight: 10}]
---
kind: DestinationRule
metadata: {name: reviews}
spec:
  host: reviews
  subsets:
    - {name: v1, labels: {version: v1}}
    - {name: v2, labels: {version: v2}, trafficPolicy: {connectionPool: {http: {maxRetries: 7}}}}
"""
    )
    here = world.rollout("reviews", 10).client("web")
    cluster = here.cluster(f"outbound|9080|{CANARY}|{HOST}")
    assert cluster.circuit_breakers.thresholds[0].max_retries.value == 7
    assert here.addresses(f"outbound|9080|{CANARY}|{HOST}") == ["127.64.0.2:15006"]


def test_the_older_rollout_counts() -> None:
    younger = ROLLOUT.replace("name: reviews", "name: a-second", 1).replace("version: v2", "version: v3")
    here = mesh(10, younger)
    assert here.addresses(f"outbound|9080|{CANARY}|{HOST}") == ["127.64.0.2:15006"]


def test_a_client_that_dials_one_instance_means_it() -> None:
    routes = mesh(50).virtual_host("9080/127.64.0.2:9080").routes
    assert routes[0].route.cluster.startswith("endpoint|127.64.0.2:9080|")


def test_without_its_object_the_subsets_do_not_exist() -> None:
    here = World().service("reviews").client("web")
    assert not here.exists(TypeUrl.CLUSTER, f"outbound|9080|{CANARY}|{HOST}")


def test_huge_weights_stay_within_what_envoy_adds_up() -> None:
    view = mesh(50).view
    target = WeightedTarget(Target(HOST, 9080), 2**31 - 1)
    other = WeightedTarget(Target(fqdn("ratings"), 9080), 2**31 - 1)
    rules, _ = arrange(view, (HttpRule("spec.http[0]", targets=(target, other)),))
    assert sum(t.weight for t in rules[0].targets) < 2**32


def test_proxies_count_and_time_answers_only_while_there_is_a_rollout() -> None:
    def counting(here: Mesh) -> bool:
        text = str(here.listener("outbound-http"))
        return "grpc_stats" in text

    assert counting(mesh())
    assert not counting(World().service("reviews").client("web"))
