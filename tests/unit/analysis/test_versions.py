"""What rollouts and lanes seem to do and don't."""

from __future__ import annotations

import pytest

from retia.analysis.analyze import analyze
from retia.config.codes import Code
from retia.model.ids import HostId, Namespace, WorkloadId
from retia.model.mesh import EndpointSet, MeshSettings, Protocol, Workload, WorkloadPort, labels_of
from retia.model.objects import ConfigObject
from retia.policy.facts import FactBase
from tests.support.documents import read

ROLLOUT = """
service: reviews
stable: {labels: {version: v1}}
canary: {labels: {version: v2}}
steps: [{weight: 5}]
"""


def rollout(text: str = ROLLOUT, name: str = "reviews") -> ConfigObject:
    return read("Rollout", text, name)


def lane(text: str, name: str = "alice", namespace: str = "default") -> ConfigObject:
    return read("TrafficLane", text, name, namespace)


def found(*objects: ConfigObject) -> list[tuple[str, str]]:
    """Codes and fields, in a mesh of ``reviews`` v1 and v2 and a database."""
    base = FactBase(MeshSettings())
    base.put_workloads(
        Workload(
            WorkloadId(f"default/{name}-{version}"),
            Namespace("default"),
            name,
            HostId("here"),
            name,
            (WorkloadPort(port, port, protocol),),
            labels_of({"version": version}),
            published_address=f"127.64.0.{number}",
        )
        for number, (name, version, port, protocol) in enumerate(
            (
                ("reviews", "v1", 9080, Protocol.HTTP),
                ("reviews", "v2", 9080, Protocol.HTTP),
                ("db", "v1", 5432, Protocol.TCP),
                ("db", "v2", 5432, Protocol.TCP),
            ),
            1,
        )
    )
    base.put_objects(objects)
    base.take_changes()
    services = list(base.services.values())
    endpoints = [EndpointSet(s.host, base.endpoints(s.host)) for s in services]
    findings = analyze(objects, services, endpoints, list(base.workloads.values()))
    return [(f.code, f.field) for f in findings]


def test_what_is_right_is_not_reported() -> None:
    entry = "entry: {service: reviews}\nmatch: [{}]\nversions: {reviews: {version: v2}}"
    assert found(rollout(), lane(entry)) == []


@pytest.mark.parametrize(
    ("text", "code", "field"),
    [
        (ROLLOUT.replace("service: reviews", "service: nothing"), Code.UNKNOWN_HOST, "spec.service"),
        (ROLLOUT.replace("service: reviews", "service: db"), Code.PROTOCOL_MISMATCH, "spec.service"),
        (ROLLOUT.replace("version: v2", "version: v9"), Code.EMPTY_SUBSET, "spec.canary"),
        (
            ROLLOUT.replace("{labels: {version: v1}}", "{subset: v1}"),
            Code.UNKNOWN_SUBSET,
            "spec.stable.subset",
        ),
    ],
)
def test_a_rollout_that_leads_nowhere(text: str, code: Code, field: str) -> None:
    assert (code, field) in found(rollout(text))


def test_the_younger_of_two_rollouts_has_no_effect() -> None:
    assert found(rollout(), rollout(name="second")) == [(Code.POLICY_CONFLICT, "spec.service")]


def test_a_rule_that_names_a_subset_passes_a_rollout_by() -> None:
    rules = """
hosts: [reviews]
http: [{route: [{destination: {host: reviews, subset: v1}}]}]
"""
    subsets = "host: reviews\nsubsets: [{name: v1, labels: {version: v1}}]"
    objects = (rollout(), read("VirtualService", rules), read("DestinationRule", subsets))
    assert found(*objects) == [(Code.ROLLOUT_PASSED_BY, "spec.http[0].route[0].destination.subset")]


@pytest.mark.parametrize(
    ("text", "code", "field"),
    [
        ("entry: {service: nothing}\nmatch: [{}]", Code.UNKNOWN_HOST, "spec.entry.service"),
        ("versions: {nothing: {version: v1}}", Code.UNKNOWN_HOST, "spec.versions.nothing"),
        ("entry: {service: reviews}", Code.NO_EFFECT_FIELD, "spec.entry"),
    ],
)
def test_a_lane_that_leads_nowhere(text: str, code: Code, field: str) -> None:
    assert found(lane(text)) == [(code, field)]


def test_the_younger_of_two_lanes_of_one_name_has_no_effect() -> None:
    assert found(lane("{}"), lane("{}", namespace="other")) == [(Code.POLICY_CONFLICT, "metadata.name")]
