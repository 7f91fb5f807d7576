"""How a client treats a destination, asked of the generated clusters and endpoints."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.world import Mesh, World, outbound


def rule(policy: str, name: str = "reviews", namespace: str = "default", more: str = "") -> str:
    return (
        f"kind: DestinationRule\nmetadata: {{name: {name}, namespace: {namespace}}}\n"
        f"spec: {{host: reviews.default.svc.cluster.local, trafficPolicy: {policy}{more}}}"
    )


def world(*rules: str) -> World:
    made = World().service("reviews", versions=("v1", "v2")).service("productpage", 9090)
    made.service("visitor", 9090, namespace="team", tier="front")
    for each in rules:
        made.apply(each)
    return made


def cluster(*rules: str) -> Any:
    return world(*rules).client("productpage").cluster(outbound("reviews"))


def attempts(client: Mesh) -> int:
    """How many connections the client may have: by which rule it is treated."""
    limits = client.cluster(outbound("reviews")).circuit_breakers.thresholds[0]
    return int(limits.max_connections.value)


def limit(connections: int) -> str:
    return f"{{connectionPool: {{tcp: {{maxConnections: {connections}}}}}}}"


NO_LIMIT = 2**32 - 1


# -- new endpoints


@pytest.mark.parametrize("simple", ["LEAST_REQUEST", "ROUND_ROBIN"])
def test_a_new_endpoint_gets_its_share_little_by_little(simple: str) -> None:
    warmup = "{duration: 30s, minimumPercent: 20, aggression: 1.5}"
    found = cluster(rule(f"{{loadBalancer: {{simple: {simple}, warmup: {warmup}}}}}"))
    balancing = found.least_request_lb_config if simple == "LEAST_REQUEST" else found.round_robin_lb_config
    start = balancing.slow_start_config

    assert start.slow_start_window.seconds == 30
    assert (start.min_weight_percent.value, start.aggression.default_value) == (20, 1.5)


def test_the_old_form_of_warmup_has_envoys_defaults() -> None:
    found = cluster(rule("{loadBalancer: {simple: ROUND_ROBIN, warmupDurationSecs: 5s}}"))
    start = found.round_robin_lb_config.slow_start_config

    assert start.slow_start_window.seconds == 5
    assert (start.min_weight_percent.value, start.aggression.default_value) == (10, 1)


# -- which rule


def test_a_rule_with_a_selector_is_for_those_callers_of_its_namespace_only() -> None:
    made = world(
        rule(limit(5)),
        rule(limit(7), "chosen", more=", workloadSelector: {matchLabels: {app: productpage}}"),
        rule(limit(9), "theirs", "team", more=", workloadSelector: {matchLabels: {tier: front}}"),
    )

    assert attempts(made.client("productpage")) == 7
    assert attempts(made.client("reviews")) == 5
    assert attempts(made.client("visitor", "team")) == 9


def test_a_selector_does_not_reach_into_another_namespace() -> None:
    made = world(rule(limit(7), more=", workloadSelector: {matchLabels: {tier: front}}"))

    assert attempts(made.client("visitor", "team")) == NO_LIMIT


@pytest.mark.parametrize(
    ("export", "here", "there"),
    [("['*']", 5, 5), ("['.']", 5, NO_LIMIT), ("[team]", NO_LIMIT, 5), ("['.', team]", 5, 5),
     ("[other]", NO_LIMIT, NO_LIMIT)],
)  # fmt: skip
def test_a_rule_is_for_callers_of_the_namespaces_it_is_exported_to(
    export: str, here: int, there: int
) -> None:
    made = world(rule(limit(5), more=f", exportTo: {export}"))

    assert attempts(made.client("productpage")) == here
    assert attempts(made.client("visitor", "team")) == there


# -- outliers


def outlier(detection: str) -> Any:
    return cluster(rule(f"{{outlierDetection: {detection}}}")).outlier_detection


def test_outliers_are_looked_for_only_where_a_rule_says_so() -> None:
    assert not cluster().HasField("outlier_detection")


def test_success_rates_never_eject() -> None:
    """Envoy does so by default, with local errors counted apart as well."""
    found = outlier("{splitExternalLocalOriginErrors: true, consecutiveLocalOriginFailures: 3}")

    assert (found.enforcing_success_rate.value, found.HasField("enforcing_success_rate")) == (0, True)
    assert found.HasField("enforcing_local_origin_success_rate")
    assert found.enforcing_local_origin_success_rate.value == 0
    assert found.consecutive_local_origin_failure.value == 3


def test_a_count_of_zero_switches_a_detector_off_and_none_is_the_default() -> None:
    off = outlier("{consecutive5xxErrors: 0, consecutiveGatewayErrors: 4}")
    default = outlier("{interval: 5s}")

    assert (off.HasField("enforcing_consecutive_5xx"), off.enforcing_consecutive_5xx.value) == (True, 0)
    assert (off.consecutive_gateway_failure.value, off.enforcing_consecutive_gateway_failure.value) == (
        4,
        100,
    )
    assert not default.HasField("consecutive_5xx"), "Envoy's default is Istio's: 5"


@pytest.mark.parametrize(("given", "said"), [("", False), (", maxEjectionPercent: 0", False),
                                             (", maxEjectionPercent: 50", True)])  # fmt: skip
def test_one_endpoint_of_few_may_be_out_whatever_the_share_is(given: str, said: bool) -> None:
    """Istio doesn't tell 0 from absence; ten percent of two endpoints would be none at all."""
    found = outlier(f"{{interval: 1s{given}}}")

    assert found.HasField("max_ejection_percent") is said
    assert found.always_eject_one_host.value


def test_the_panic_threshold_is_the_rules_own() -> None:
    made = rule("{outlierDetection: {interval: 1s, minHealthPercent: 30}}")

    assert cluster(made).common_lb_config.healthy_panic_threshold.value == 30
    found = cluster(rule("{outlierDetection: {interval: 1s}}")).common_lb_config
    assert (found.HasField("healthy_panic_threshold"), found.healthy_panic_threshold.value) == (True, 0)


# -- pools


def test_there_is_no_limit_by_default() -> None:
    limits = cluster().circuit_breakers.thresholds[0]

    assert {limits.max_connections.value, limits.max_pending_requests.value,
            limits.max_requests.value, limits.max_retries.value} == {NO_LIMIT}  # fmt: skip
    assert cluster().connect_timeout.seconds == 10


def test_a_ports_settings_replace_all_of_its_level() -> None:
    """What they leave out is the default, not what the level says."""
    found = cluster(
        rule("{connectionPool: {tcp: {maxConnections: 5}}, outlierDetection: {interval: 1s}, "
             "portLevelSettings: [{port: {number: 9080}, loadBalancer: {simple: RANDOM}}]}")
    )  # fmt: skip

    assert found.circuit_breakers.thresholds[0].max_connections.value == NO_LIMIT
    assert not found.HasField("outlier_detection")
    assert found.lb_policy == found.RANDOM
