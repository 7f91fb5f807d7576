"""Every code of the catalogue is found in a mesh that has the fault, and none in a mesh that is right."""

from __future__ import annotations

from dataclasses import replace

import pytest

from retia.analysis.analyze import analyze
from retia.config.codes import Code
from retia.config.parse import SourceText, parse
from retia.model.finding import Finding
from retia.model.ids import HostId, Namespace, WorkloadId
from retia.model.mesh import (
    EndpointSet,
    MeshSettings,
    Protocol,
    Workload,
    WorkloadPort,
    labels_of,
)
from retia.policy.facts import FactBase

NET = "apiVersion: networking.istio.io/v1\n"
RIGHT = f"""\
{NET}kind: DestinationRule
metadata: {{name: reviews}}
spec:
  host: reviews
  subsets: [{{name: v1, labels: {{version: v1}}}}, {{name: v2, labels: {{version: v2}}}}]
---
{NET}kind: VirtualService
metadata: {{name: reviews}}
spec:
  hosts: [reviews]
  gateways: [mesh, edge]
  http:
  - match: [{{uri: {{prefix: /api}}}}]
    route:
    - {{destination: {{host: reviews, subset: v1}}, weight: 90}}
    - {{destination: {{host: reviews, subset: v2}}, weight: 10}}
  - route: [{{destination: {{host: reviews, subset: v1, port: {{number: 9080}}}}}}]
---
{NET}kind: Gateway
metadata: {{name: edge}}
spec:
  selector: {{istio: ingressgateway}}
  servers: [{{port: {{number: 80, name: http, protocol: HTTP}}, hosts: ["*"]}}]
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {{name: reviews}}
spec: {{selector: {{matchLabels: {{version: v1}}}}, mtls: {{mode: STRICT}}}}
---
apiVersion: retia.dev/v1alpha1
kind: RateLimitPolicy
metadata: {{name: reviews}}
spec:
  targetRefs: [{{kind: Service, name: reviews}}]
  limits: [{{name: all, requests: 100}}]
"""


def workload(name: str, port: WorkloadPort | None, **labels: str) -> Workload:
    service = name.partition("-")[0] if port else ""
    return Workload(
        WorkloadId(f"default/{name}"),
        Namespace("default"),
        service or "default",
        HostId("h"),
        service=service,
        ports=(port,) if port else (),
        labels=labels_of(labels),
        published_address="127.64.0.1",
    )


WORKLOADS = (
    workload("reviews-v1", WorkloadPort(9080, 9080, Protocol.HTTP), version="v1"),
    replace(
        workload("reviews-v2", WorkloadPort(9080, 9080, Protocol.HTTP), version="v2"),
        published_address="127.64.0.2",
    ),
    replace(workload("db-1", WorkloadPort(5432, 5432, Protocol.TCP)), published_address="127.64.0.3"),
    workload("ingress", None, istio="ingressgateway"),
)


def found(*texts: str) -> list[Finding]:
    """All that is wrong with the texts in a mesh of reviews (two versions), db and a gateway."""
    parsed = parse([SourceText(f"{number}.yaml", text) for number, text in enumerate(texts)])
    objects = [replace(obj, created=number) for number, obj in enumerate(parsed.objects, start=1)]
    facts = FactBase(MeshSettings())
    facts.put_objects(objects)
    facts.put_workloads(WORKLOADS)
    facts.take_changes()
    services = list(facts.services.values())
    endpoints = [EndpointSet(s.host, facts.endpoints(s.host)) for s in services]
    return [*parsed.findings, *analyze(objects, services, endpoints, WORKLOADS)]


def net(kind: str, spec: str, name: str = "it") -> str:
    return f"{NET}kind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n"


def routed(to: str, more: str = "") -> str:
    return net("VirtualService", f"{{hosts: [reviews], http: [{{route: [{{destination: {to}}}]{more}}}]}}")


def limit(spec: str) -> str:
    head = "apiVersion: retia.dev/v1alpha1\nkind: RateLimitPolicy\nmetadata: {name: it}\n"
    return f"{head}spec: {{{spec}, limits: [{{name: all, requests: 5}}]}}\n"


def two(kind: str, spec: str) -> str:
    return f"{net(kind, spec, 'a')}---\n{net(kind, spec, 'b')}"


STRICT = """\
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: all}
spec: {mtls: {mode: STRICT}}
"""
ENTRY = '{hosts: ["a.example.com"], ports: [{number: 80, name: http, protocol: HTTP}], resolution: DNS}'
TLS = (
    "{port: {number: 443, name: https, protocol: HTTPS}, hosts: ['*'], "
    "tls: {mode: SIMPLE, credentialName: c}}"
)

FAULTS: dict[Code, tuple[str, ...]] = {
    Code.SYNTAX: ("a: [",),
    Code.DUPLICATE_KEY: ("a: 1\na: 2",),
    Code.LIMIT: ("a: " + "[" * 70 + "]" * 70,),
    Code.NOT_AN_OBJECT: ("[]",),
    Code.UNKNOWN_KIND: ("apiVersion: example.com/v1\nkind: Thing\nmetadata: {name: it}",),
    Code.UNKNOWN_VERSION: ("apiVersion: networking.istio.io/v9\nkind: VirtualService\nmetadata: {name: it}",),
    Code.DUPLICATE_OBJECT: (routed("{host: reviews}"), routed("{host: reviews}")),
    Code.METADATA: (net("DestinationRule", "{host: reviews}", "Not_A_Name"),),
    Code.UNKNOWN_FIELD: (net("DestinationRule", "{host: reviews, hots: x}"),),
    Code.MISSING_FIELD: (net("DestinationRule", "{}"),),
    Code.WRONG_TYPE: (net("DestinationRule", "{host: [reviews]}"),),
    Code.BAD_VALUE: (
        net("VirtualService", "{hosts: ['*'], http: [{route: [{destination: {host: reviews}}]}]}"),
    ),
    Code.CONFLICT: (routed("{host: reviews}", ", redirect: {uri: /}"),),
    Code.DEPRECATED_FIELD: (routed("{host: reviews}", ", mirror: {host: reviews}, mirrorPercent: 5"),),
    Code.UNSUPPORTED_KIND: (
        "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {name: it}\nspec: {}",
    ),
    Code.SKIPPED_KIND: ("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: it}",),
    Code.UNKNOWN_HOST: (routed("{host: ratings}"),),
    Code.UNKNOWN_SUBSET: (routed("{host: reviews, subset: v9}"),),
    Code.UNKNOWN_PORT: (routed("{host: reviews, port: {number: 81}}"),),
    Code.HOST_CONFLICT: (
        two("VirtualService", "{hosts: [reviews], http: [{route: [{destination: {host: reviews}}]}]}"),
    ),
    Code.EMPTY_SUBSET: (
        net("DestinationRule", "{host: reviews, subsets: [{name: v3, labels: {version: v3}}]}"),
    ),
    Code.PROTOCOL_MISMATCH: (
        net("VirtualService", "{hosts: [db], http: [{route: [{destination: {host: db}}]}]}"),
    ),
    Code.ZERO_WEIGHT: (
        net(
            "VirtualService",
            "{hosts: [reviews], http: [{route: [{destination: {host: reviews}, weight: 0}, "
            "{destination: {host: db}, weight: 0}]}]}",
        ),
    ),
    Code.EMPTY_SELECTOR: (net("Gateway", f"{{selector: {{istio: other}}, servers: [{TLS}]}}"),),
    Code.MTLS_CONFLICT: (
        STRICT,
        net("DestinationRule", "{host: reviews, trafficPolicy: {tls: {mode: DISABLE}}}"),
    ),
    Code.UNREACHABLE_RULE: (
        net(
            "VirtualService",
            "{hosts: [reviews], http: [{route: [{destination: {host: reviews}}]}, "
            "{match: [{uri: {prefix: /a}}], route: [{destination: {host: reviews}}]}]}",
        ),
    ),
    Code.DESTINATION_RULE_CONFLICT: (
        two("DestinationRule", "{host: reviews, trafficPolicy: {loadBalancer: {simple: RANDOM}}}"),
    ),
    Code.POLICY_CONFLICT: (STRICT, STRICT.replace("name: all", "name: again")),
    Code.DUPLICATE_SERVICE: (two("ServiceEntry", ENTRY),),
    Code.UNUSUAL_WEIGHTS: (
        net(
            "VirtualService",
            "{hosts: [reviews], http: [{route: [{destination: {host: reviews}, weight: 1}, "
            "{destination: {host: db}, weight: 1}]}]}",
        ),
    ),
    Code.NO_CERTIFICATE: (net("Gateway", f"{{selector: {{istio: ingressgateway}}, servers: [{TLS}]}}"),),
    Code.OVERLAPPING_HOSTS: (
        net("ServiceEntry", ENTRY, "narrow"),
        net("ServiceEntry", ENTRY.replace("a.example", "*.example").replace("DNS", "NONE"), "wide"),
    ),
    Code.UNKNOWN_GATEWAY: (
        net(
            "VirtualService",
            "{hosts: [reviews], gateways: [none], http: [{route: [{destination: {host: reviews}}]}]}",
        ),
    ),
    Code.UNKNOWN_OBJECT: (net("VirtualService", "{hosts: [reviews], http: [{delegate: {name: none}}]}"),),
}

ELSEWHERE = {
    Code.UNREADABLE: "bytes that are no UTF-8: tests/unit/config",
    Code.UNSUPPORTED_FIELD: "as long as there are such fields: tests/unit/config",
    Code.NO_EFFECT_FIELD: "tests/unit/config",
    Code.AMBIGUOUS_ADDRESS: "test_analyze",
    Code.ROLLOUT_PASSED_BY: "test_versions",
    Code.NOT_BUILT: "of resources, not of documents: tests/unit/xds",
    Code.REJECTED: "of resources, not of documents: tests/integration/control",
    Code.UNTRIED: "of resources, not of documents",
}
"""Codes whose tests stand elsewhere, and why."""


@pytest.mark.parametrize("code", FAULTS, ids=lambda code: code.name.lower().replace("_", "-"))
def test_a_fault_is_found(code: Code) -> None:
    findings = found(*FAULTS[code])
    mine = [each for each in findings if each.code == code]
    assert mine, [str(each) for each in findings]
    assert all(each.level is code.level for each in mine)


def test_a_mesh_that_is_right_has_no_finding() -> None:
    assert [str(each) for each in found(RIGHT)] == []


def test_every_code_is_tried() -> None:
    assert not set(FAULTS) & set(ELSEWHERE)
    assert set(Code) - set(FAULTS) <= set(ELSEWHERE)


class TestTargets:
    """Policies that are for nobody."""

    @pytest.mark.parametrize(
        ("spec", "code", "field"),
        [
            ("selector: {matchLabels: {app: none}}", Code.EMPTY_SELECTOR, "spec.selector.matchLabels"),
            ("targetRefs: [{kind: Service, name: none}]", Code.UNKNOWN_HOST, "spec.targetRefs[0].name"),
            (
                "targetRefs: [{kind: Service, name: reviews, sectionName: '81'}]",
                Code.UNKNOWN_PORT,
                "spec.targetRefs[0].sectionName",
            ),
            (
                "targetRefs: [{kind: VirtualService, name: none}]",
                Code.UNKNOWN_OBJECT,
                "spec.targetRefs[0].name",
            ),
        ],
    )
    def test_are_said(self, spec: str, code: Code, field: str) -> None:
        assert [(each.code, each.field) for each in found(limit(spec))] == [(code, field)]


class TestProtocols:
    """Rules on a protocol that can't honour them."""

    def test_a_rule_for_connections_at_an_http_port(self) -> None:
        spec = "{hosts: [reviews], tcp: [{match: [{port: 9080}], route: [{destination: {host: db}}]}]}"
        codes = {(each.code, each.field) for each in found(net("VirtualService", spec))}
        assert (Code.PROTOCOL_MISMATCH, "spec.tcp[0].match[0].port") in codes

    @pytest.mark.parametrize(
        ("policy", "field"),
        [
            ("connectionPool: {http: {maxRetries: 3}}", "connectionPool.http"),
            (
                "loadBalancer: {consistentHash: {httpHeaderName: x-user}}",
                "loadBalancer.consistentHash.httpHeaderName",
            ),
        ],
    )
    def test_settings_for_http_where_none_is_spoken(self, policy: str, field: str) -> None:
        (each,) = found(net("DestinationRule", f"{{host: db, trafficPolicy: {{{policy}}}}}"))
        assert (each.code, each.field) == (Code.PROTOCOL_MISMATCH, f"spec.trafficPolicy.{field}")
