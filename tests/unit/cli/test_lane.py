from __future__ import annotations

from retia.api import schema
from retia.cli.lane import members
from tests.unit.api.fakes import FakeBackend
from tests.unit.cli.conftest import Run


def workload(service: str, version: str, namespace: str = "default", **labels: str) -> schema.WorkloadInfo:
    return schema.WorkloadInfo(
        id=f"{namespace}/{service}-{version}",
        namespace=namespace,
        service=service,
        version=version,
        labels={"version": version, **labels},
    )


MINE = {"retia.dev/lane": "alice"}
VERSIONS = {"spec": {"versions": {"reviews": {"version": "v2"}, "ratings": {"version": "v7"}}}}


def test_labelled_instances_come_before_named_versions() -> None:
    workloads = [
        workload("reviews", "v1"),
        workload("reviews", "v2"),
        workload("reviews", "dev", **MINE),
        workload("ratings", "v7"),
        workload("ratings", "v7", "other"),
        workload("web", "v1"),
    ]
    found = [(row[3], row[4]) for row in members("alice", "default", VERSIONS, workloads)]
    assert found == [
        ("default/ratings-v7", "versions"),
        ("default/reviews-dev", "label retia.dev/lane"),
    ]


def test_status_without_an_object_says_that_nobody_is_on_the_lane(run: Run, backend: FakeBackend) -> None:
    backend.workloads = [workload("reviews", "dev", **MINE)]
    ran = run("lane", "status", "alice")
    assert ran.code == 0
    assert "default/reviews-dev" in ran.out
    assert "no request is on it" in ran.err


def test_status_of_a_lane_that_is_nowhere_fails(run: Run, backend: FakeBackend) -> None:
    backend.workloads = [workload("reviews", "dev", **MINE)]
    for more in ((), ("-o", "json")):
        ran = run("lane", "status", "nosuch", *more)
        assert ran.code == 1
        assert "lane nosuch does not exist" in ran.err


def test_no_lane_at_all(run: Run, backend: FakeBackend) -> None:
    assert "retia run --lane" in run("lane", "status").err


def test_run_refuses_a_lane_that_makes_no_sense(run: Run) -> None:
    assert "--service" in run("run", "--lane", "alice", "--", "true").err
    assert "DNS label" in run("run", "--service", "a", "--lane", "Alice!", "--", "true").err
    contradicting = run("run", "--service", "a", "--lane", "a", "--label", "retia.dev/lane=b", "--", "true")
    assert "contradict" in contradicting.err
