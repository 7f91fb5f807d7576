"""What RateLimitPolicy, OverloadPolicy and HttpPolicy may say."""

from __future__ import annotations

import pytest

from tests.support.documents import findings_of, spec_of

LIMIT = "limits: [{name: all, requests: 10}]"


def limit(text: str) -> str:
    return f"limits: [{{name: all, {text}}}]"


def test_defaults_of_a_limit() -> None:
    only = spec_of("RateLimitPolicy", LIMIT).limits[0]
    assert (str(only.scope), only.window_s, only.burst, only.shadow) == ("Local", 1.0, None, False)
    assert spec_of("RateLimitPolicy", limit("requests: 1, per: Day")).limits[0].window_s == 86400
    assert spec_of("RateLimitPolicy", limit("requests: 1, unit: 250ms")).limits[0].window_s == 0.25


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ("limits: []", "spec.limits"),
        (limit("per: Minute"), "spec.limits[0]"),
        (limit("requests: 0"), "spec.limits[0].requests"),
        (limit("requests: 1, connections: 1"), "spec.limits[0].connections"),
        (limit("requests: 1, per: Minute, unit: 10s"), "spec.limits[0].unit"),
        (limit("requests: 1, per: Fortnight"), "spec.limits[0].per"),
        (limit("requests: 1, unit: 10ms"), "spec.limits[0].unit"),
        (limit("requests: 1, scope: Global, unit: 1500ms"), "spec.limits[0].unit"),
        (limit("requests: 1, scope: Global, burst: 2"), "spec.limits[0].burst"),
        (limit("requests: 1, when: [{}]"), "spec.limits[0].when[0]"),
        (limit("requests: 1, when: [{method: get}]"), "spec.limits[0].when[0].method"),
        (limit("requests: 1, when: [{path: {value: api}}]"), "spec.limits[0].when[0].path.value"),
        (
            limit("requests: 1, when: [{path: {type: RegularExpression, value: '('}}]"),
            "spec.limits[0].when[0].path.value",
        ),
        (
            limit("requests: 1, when: [{headers: [{name: x, type: Present, value: y}]}]"),
            "spec.limits[0].when[0].headers[0].value",
        ),
        (limit("requests: 1, when: [{source: {}}]"), "spec.limits[0].when[0].source"),
        (
            limit("requests: 1, when: [{source: {identities: [web]}}]"),
            "spec.limits[0].when[0].source.identities[0]",
        ),
        (
            limit("requests: 1, when: [{remoteAddresses: [here]}]"),
            "spec.limits[0].when[0].remoteAddresses[0]",
        ),
        (
            limit("requests: 1, when: [{remoteAddresses: ['fd00::/8']}]"),
            "spec.limits[0].when[0].remoteAddresses[0]",
        ),
        (limit("requests: 1, by: [{type: Header}]"), "spec.limits[0].by[0].name"),
        (limit("requests: 1, by: [{type: Path, name: x}]"), "spec.limits[0].by[0].name"),
        (limit("requests: 1, by: [{type: Cookie, name: x}]"), "spec.limits[0].by[0].type"),
        (limit("messages: 1"), "spec.limits[0].messages"),
        (limit("connections: 1, scope: Global"), "spec.limits[0].scope"),
        (limit("connections: 1, by: [{type: RemoteAddress}]"), "spec.limits[0].by"),
        (limit("connections: 1, shadow: true"), "spec.limits[0].shadow"),
        (limit("concurrentConnections: 1, per: Second"), "spec.limits[0].per"),
        (limit("bytes: 100"), "spec.limits[0].bytes"),
        (limit("bytes: 2048, per: Minute"), "spec.limits[0].bytes"),
        (LIMIT + "\nstatus: 200", "spec.status"),
        (limit("requests: 1, scope: Global") + "\nstatus: 503", "spec.status"),
        (LIMIT + "\nonUnavailable: Deny", "spec.onUnavailable"),
        (LIMIT + "\ntargetRefs: [{kind: Pod, name: x}]", "spec.targetRefs[0].kind"),
        (LIMIT + "\ntargetRefs: [{kind: Service, group: apps, name: x}]", "spec.targetRefs[0].group"),
        (
            LIMIT + "\ntargetRefs: [{kind: Gateway, name: x, sectionName: y}]",
            "spec.targetRefs[0].sectionName",
        ),
        (LIMIT + "\ntargetRefs: [{kind: Service, name: x}, {kind: Service, name: x}]", "spec.targetRefs[1]"),
        (LIMIT + "\ntargetRefs: [{kind: Service, name: x}]\nselector: {}", "spec.selector"),
        (limit("connections: 1") + "\ntargetRefs: [{kind: HTTPRoute, name: x}]", "spec.limits[0]"),
        ("limits: [{name: a, requests: 1}, {name: a, requests: 2}]", "spec.limits[1].name"),
    ],
)
def test_a_limit_that_cannot_be(spec: str, field: str) -> None:
    assert [each.partition(": ")[0] for each in findings_of("RateLimitPolicy", spec)] == [field]


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ("targetRefs: [{kind: Service, name: x}]", "spec"),
        ("retryBudget: {}", "spec.retryBudget"),
        ("retryBudget: {}\ntargetRefs: [{kind: Service, name: x, sectionName: y}]", "spec.retryBudget"),
        ("adaptiveConcurrency: {minConcurrency: 2000}", "spec.adaptiveConcurrency.minConcurrency"),
        ("adaptiveConcurrency: {}\ntargetRefs: [{kind: HTTPRoute, name: x}]", "spec.targetRefs[0].kind"),
        ("admissionControl: {samplingWindow: 1500ms}", "spec.admissionControl.samplingWindow"),
        ("admissionControl: {successPercent: 0.5}", "spec.admissionControl.successPercent"),
        ("priority: {maxConcurrency: 5, critical: []}", "spec.priority.critical"),
        ("priority: {maxConcurrency: 5, critical: [{}]}", "spec.priority.critical[0]"),
        (
            "priority: {maxConcurrency: 5, critical: [{method: GET}]}\n"
            "targetRefs: [{kind: Gateway, name: x}]",
            "spec.priority",
        ),
    ],
)
def test_an_overload_policy_that_cannot_be(spec: str, field: str) -> None:
    assert [each.partition(": ")[0] for each in findings_of("OverloadPolicy", spec)] == [field]


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ("selector: {}", "spec"),
        ("maxRequestBytes: 0", "spec.maxRequestBytes"),
        ("compression: {algorithms: []}", "spec.compression.algorithms"),
        ("compression: {algorithms: [Gzip, Gzip]}", "spec.compression.algorithms[1]"),
        ("compression: {minBytes: 10}", "spec.compression.minBytes"),
        ("transcoding: {descriptor: '', services: [a.B]}", "spec.transcoding.descriptor"),
        ("transcoding: {descriptor: 'x', services: [a.B]}", "spec.transcoding.descriptor"),
        ("cache: {maxBytes: 1000}", "spec.cache"),
    ],
)
def test_an_http_policy_that_cannot_be(spec: str, field: str) -> None:
    assert [each.partition(": ")[0] for each in findings_of("HttpPolicy", spec)] == [field]
