"""Retia's own policies against what they are for."""

from __future__ import annotations

from dataclasses import replace

import pytest

from retia.analysis.analyze import analyze
from retia.model.ids import HostId, Namespace, WorkloadId, service_host
from retia.model.mesh import Protocol, Service, ServicePort, Workload, labels_of
from retia.model.objects import ConfigObject
from tests.support.documents import read

LIMITS = "limits: [{name: all, requests: 10}]\n"
HTTP = ServicePort(9080, Protocol.HTTP, "web")
TCP = ServicePort(5432, Protocol.TCP, "db")


def limit(spec: str, name: str = "it", created: int = 0) -> ConfigObject:
    return replace(read("RateLimitPolicy", LIMITS + spec, name), created=created)


def overload(spec: str, name: str = "it", created: int = 0) -> ConfigObject:
    return replace(read("OverloadPolicy", spec, name), created=created)


def service(name: str, *ports: ServicePort) -> Service:
    return Service(service_host(name, "default"), Namespace("default"), name, ports)


def workload(**labels: str) -> Workload:
    labelled = labels_of(labels)
    return Workload(WorkloadId("default/w"), Namespace("default"), "w", HostId("h"), labels=labelled)


def codes(*objects: ConfigObject, services: tuple[Service, ...] = (), complete: bool = True) -> list[str]:
    found = analyze(objects, services, (), (workload(app="web"),), complete=complete)
    return [f"{each.code} {each.field}" for each in found]


REVIEWS = "targetRefs: [{kind: Service, name: reviews}]"


def test_nothing_is_wrong_with_a_policy_for_a_service_of_http() -> None:
    assert codes(limit(REVIEWS), services=(service("reviews", HTTP),)) == []


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (REVIEWS, ["RT0301 spec.targetRefs[0].name"]),
        ("targetRefs: [{kind: HTTPRoute, name: shop}]", ["RT0319 spec.targetRefs[0].name"]),
        ("targetRefs: [{kind: Gateway, name: shop}]", ["RT0319 spec.targetRefs[0].name"]),
        ("selector: {matchLabels: {app: db}}", ["RT0308 spec.selector.matchLabels"]),
        ("selector: {matchLabels: {app: web}}", []),
    ],
)
def test_a_policy_that_matches_nothing(spec: str, expected: list[str]) -> None:
    assert codes(limit(spec)) == expected


def test_a_selector_that_matches_nothing_is_told_what_there_is() -> None:
    there = (workload(app="api"), workload(app="web"))
    (found,) = analyze([limit("selector: {matchLabels: {app: db}}")], [], [], there)
    assert found.message.endswith("has; there are app=api, app=web")


def test_files_alone_do_not_know_all_services() -> None:
    assert codes(limit(REVIEWS), complete=False) == []


def test_a_port_that_the_service_has_not() -> None:
    spec = "targetRefs: [{kind: Service, name: reviews, sectionName: admin}]"
    assert codes(limit(spec), services=(service("reviews", HTTP),)) == [
        "RT0303 spec.targetRefs[0].sectionName"
    ]


def test_a_rule_that_the_route_has_not() -> None:
    route = read(
        "VirtualService", "hosts: [reviews]\nhttp: [{name: a, route: [{destination: {host: reviews}}]}]"
    )
    spec = "targetRefs: [{kind: VirtualService, name: it, sectionName: %s}]"
    services = (service("reviews", HTTP),)
    assert codes(limit(spec % "a", "p"), route, services=services) == []
    assert codes(limit(spec % "b", "p"), route, services=services) == [
        "RT0319 spec.targetRefs[0].sectionName"
    ]


def test_requests_that_cannot_be_seen() -> None:
    assert codes(limit(REVIEWS), services=(service("reviews", TCP),)) == ["RT0306 spec.targetRefs[0].name"]
    budget = overload(REVIEWS + "\nretryBudget: {}")
    assert codes(budget, services=(service("reviews", TCP),)) == []


def test_of_two_policies_the_older_decides() -> None:
    services = (service("reviews", HTTP),)
    older = overload(REVIEWS + "\nadaptiveConcurrency: {}\nretryBudget: {}", "a", 1)
    newer = overload(REVIEWS + "\nadaptiveConcurrency: {maxConcurrency: 50}\nadmissionControl: {}", "b", 2)
    assert codes(older, newer, services=services) == ["RT0313 spec.adaptiveConcurrency"]


def test_limits_of_several_policies_hold_together() -> None:
    services = (service("reviews", HTTP),)
    assert codes(limit(REVIEWS, "a", 1), limit(REVIEWS, "b", 2), services=services) == []
    assert codes(limit(REVIEWS, "a", 1), limit(REVIEWS + "\nstatus: 503", "b", 2), services=services) == [
        "RT0313 spec.status"
    ]


def test_a_global_limit_needs_somebody_who_counts() -> None:
    counted = replace(read("RateLimitPolicy", "limits: [{name: a, scope: Global, requests: 1}]"))
    assert codes(counted) == ["RT0301 spec.limits[0].scope"]
    assert codes(counted, complete=False) == []
    host = service_host("ratelimit", "retia-system")
    counter = Service(host, Namespace("retia-system"), "ratelimit", (HTTP,))
    assert codes(counted, services=(counter,)) == []
