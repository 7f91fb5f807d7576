"""Istio's annotations of workloads."""

from __future__ import annotations

from retia.analysis.analyze import analyze
from retia.model.ids import HostId, Namespace, WorkloadId
from retia.model.mesh import Workload, labels_of


def said(**annotations: str) -> list[str]:
    workload = Workload(
        WorkloadId("default/reviews-v1-0"),
        Namespace("default"),
        "reviews",
        HostId("here"),
        annotations=labels_of({name.replace("__", "/"): value for name, value in annotations.items()}),
    )
    return [str(each) for each in analyze((), (), (), [workload])]


def test_one_that_does_nothing_here_is_reported_with_the_reason() -> None:
    found = said(
        **{"traffic.sidecar.istio.io__excludeOutboundPorts": "443", "sidecar.istio.io__proxyCPU": "1"}
    )

    assert len(found) == 2
    assert "the proxy is started by the agent" in found[0]
    assert "never captured" in found[1]
    assert all("Workload/default/reviews-v1-0" in each for each in found)


def test_those_that_are_obeyed_and_others_are_not() -> None:
    assert said(**{"traffic.sidecar.istio.io__excludeInboundPorts": "9000", "team": "a"}) == []
