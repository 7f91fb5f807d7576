"""What Rollout and TrafficLane may say."""

from __future__ import annotations

import pytest

from retia.policy.rollout import plan_of
from tests.support.documents import findings_of, spec_of

VERSIONS = "service: a\nstable: {labels: {version: v1}}\ncanary: {labels: {version: v2}}\n"


def steps(text: str) -> str:
    return f"{VERSIONS}steps: {text}"


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        (steps("[]"), "spec.steps"),
        (steps("[{}]"), "spec.steps[0]"),
        (steps("[" + "{weight: 1}, " * 201 + "]"), "spec.steps"),
        (steps("[{weight: 101}]"), "spec.steps[0].weight"),
        (steps("[{weight: 50}, {pause: true}, {weight: 20}]"), "spec.steps[2].weight"),
        (steps("[{hold: 5}]"), "spec.steps[0].hold"),
        (steps("[{weight: 5}]").replace("v2", "v1"), "spec.canary"),
        (steps("[{weight: 5}]").replace("{labels: {version: v2}}", "{}"), "spec.canary"),
        (steps("[{weight: 5}]").replace("{labels: {version: v2}}", "{labels: {}}"), "spec.canary.labels"),
        (steps("[{weight: 5}]").replace("stable: {", "stable: {subset: x, "), "spec.stable.labels"),
        (steps("[{weight: 5}]") + "\ngates: {successRate: {min: 101}}", "spec.gates.successRate.min"),
        (steps("[{weight: 5}]") + "\ngates: {latency: {p: 100, max: 1s}}", "spec.gates.latency.p"),
        (steps("[{weight: 5}]") + "\ngates: {latency: {max: 0s}}", "spec.gates.latency.max"),
        (steps("[{weight: 5}]") + "\ngates: {minRequests: -1}", "spec.gates.minRequests"),
        (steps("[{weight: 5}]") + "\nprogressDeadline: -1s", "spec.progressDeadline"),
    ],
)
def test_what_a_rollout_may_not_say(spec: str, field: str) -> None:
    assert [found for found in findings_of("Rollout", spec) if found.startswith(f"{field}:")]


def test_the_plan_of_a_rollout() -> None:
    plan = plan_of(
        spec_of("Rollout", steps("[{hold: 1s}, {weight: 5}, {pause: true}, {weight: 20, hold: 1m}]"))
    )
    assert [(s.weight, s.hold_s, s.pause) for s in plan.steps] == [
        (0, 1.0, False),
        (5, 0.0, False),
        (5, 0.0, True),
        (20, 60.0, False),
    ]
    assert not plan.gates.any
    assert plan.deadline_s == 3600


def test_a_gate_needs_requests_to_judge() -> None:
    gates = plan_of(spec_of("Rollout", steps("[{weight: 5}]") + "\ngates: {successRate: {min: 99.5}}")).gates
    assert (gates.min_success, gates.min_requests, gates.max_latency_s) == (99.5, 50, None)


def test_progress_goes_on_when_gates_change_and_not_when_versions_or_steps_do() -> None:
    def key(text: str) -> str:
        return plan_of(spec_of("Rollout", text)).key

    first = steps("[{weight: 5}]")
    assert key(first) == key(first + "\ngates: {minRequests: 5}") == key(first + "\nprogressDeadline: 1m")
    assert len({key(first), key(first.replace("v2", "v3")), key(steps("[{weight: 6}]"))}) == 3


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ("match: [{percentage: 0}]", "spec.match[0].percentage"),
        ("match: [{percentage: 101}]", "spec.match[0].percentage"),
        ("match: [{user: {values: [a]}}]", "spec.match[0].user"),
        ("match: [{user: {header: x-user}}]", "spec.match[0].user.values"),
        ("match: [{user: {header: x-user, claim: sub, values: [a]}}]", "spec.match[0].user.claim"),
        ("match: [{user: {claim: sub, values: [a]}}]", "spec.match[0].user.claim"),
        ("match: [{headers: {a: {regex: '('}}}]", "spec.match[0].headers"),
        ("versions: {a: {}}", "spec.versions.a"),
        ("entry: {}", "spec.entry.service"),
        ("clientBaggage: Believe", "spec.clientBaggage"),
        ("lane: b", "spec.lane"),
        ("match: [" + "{}, " * 33 + "]", "spec.match"),
    ],
)
def test_what_a_lane_may_not_say(spec: str, field: str) -> None:
    assert [found for found in findings_of("TrafficLane", spec) if found.startswith(field)]


def test_a_lane_may_say_nothing() -> None:
    spec = spec_of("TrafficLane", "{}")
    assert (spec.match, spec.entry, spec.versions, str(spec.client_baggage)) == ((), None, (), "Strip")
