"""What this version does not apply is refused, and the list of it is true to the models."""

# ruff: noqa: E501 - messages stand whole, so that they can be searched for

from __future__ import annotations

import pytest

from retia.config.codes import Code
from retia.config.kinds import KINDS
from retia.config.reference import fields_of
from retia.config.support import LIMITS, unsupported
from retia.policy.traffic import read as traffic
from tests.support.documents import document, findings_of, parse_text

TO = "route: [{destination: {host: a}}]"


@pytest.mark.parametrize("kind", KINDS)
def test_every_limit_names_a_field_of_the_models(kind: str) -> None:
    known = {field.path.replace("[]", "") for field in fields_of(kind)}
    shared = {path.partition("trafficPolicy.")[2] for path in known}
    shared |= {f"rules.backendRefs.{path.partition('rules.')[2]}" for path in known}
    for limit in LIMITS[kind]:
        # A model that two fields share is listed with the first.
        path = limit.field.replace("[]", "").replace("inboundConnectionPool.", "ingress.connectionPool.")
        parent, _, leaf = path.rpartition("trafficPolicy.")
        leaf = leaf.removeprefix("portLevelSettings.") if parent or "portLevel" in leaf else leaf
        assert path in known or leaf in shared or path in shared, limit.field


def test_what_policy_does_not_apply_is_refused_here() -> None:
    listed = {limit.field for limit in LIMITS["DestinationRule"] if limit.code is Code.UNSUPPORTED_FIELD}
    for field, _ in traffic._UNSUPPORTED:
        camel = ".".join(_camel(part) for part in field.split("."))
        assert f"trafficPolicy.{camel}" in listed


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


@pytest.mark.parametrize(
    ("kind", "spec", "said"),
    [
        ("VirtualService", f"hosts: [a]\ntcp: [{{{TO}, match: [{{sourceSubnet: 10.0.0.0/8}}]}}]", "spec.tcp[0].match[0].sourceSubnet: is not supported by this version; Istio doesn't apply it either; use sourceLabels"),
        ("VirtualService", "hosts: [a]\nhttp: [{redirect: {uri: /b, redirectCode: 305}}]", "spec.http[0].redirect.redirectCode: is 305, which is not supported by this version; 301, 302, 303, 307 and 308 are"),
        ("Sidecar", "egress: [{hosts: [./*], captureMode: NONE}]", "spec.egress[0].captureMode: is NONE, which is not supported by this version; connections are captured as the workload is"),
        ("IstioOperator", "meshConfig: {enableTracing: true}", "spec.meshConfig.enableTracing: is True, which is not supported by this version; spans are not made"),
        ("VirtualService", f"hosts: [a]\nhttp: [{{{TO}, corsPolicy: {{allowOrigin: [a]}}}}]", "spec.http[0].corsPolicy.allowOrigin: is an old name; use allowOrigins"),
        ("VirtualService", f"hosts: [a]\nhttp: [{{{TO}, mirror: {{host: b}}, mirrorPercent: 5}}]", "spec.http[0].mirrorPercent: is an old name; use mirrorPercentage"),
        ("DestinationRule", "host: a\nsubsets: [{name: a, trafficPolicy: {retryBudget: {budgetInterval: 2s}}}]", "spec.subsets[0].trafficPolicy.retryBudget.budgetInterval: is not supported by this version; retries are compared with the requests of the moment"),
        ("DestinationRule", "host: a\ntrafficPolicy: {loadBalancer: {zoneAwareLbSetting: {enabled: true}}}", "spec.trafficPolicy.loadBalancer.zoneAwareLbSetting: is not supported by this version; use localityLbSetting"),
    ],
)  # fmt: skip
def test_a_field_to_come(kind: str, spec: str, said: str) -> None:
    assert said in findings_of(kind, spec)


def test_a_field_that_is_empty_says_nothing() -> None:
    assert findings_of("VirtualService", f"hosts: [a]\nhttp: [{{{TO}}}]\ntls: []\ntcp:\nexportTo: []") == []


def test_a_field_to_come_costs_the_object() -> None:
    text = document("DestinationRule", "host: a\ntrafficPolicy: {retryBudget: {budgetInterval: 2s}}")
    assert parse_text(text).objects == ()


def test_documents_of_any_shape_are_searched() -> None:
    assert list(unsupported("VirtualService", {"http": "x", "gateways": {"a": 1}, "exportTo": 5})) == []
