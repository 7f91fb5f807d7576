"""From texts to objects and findings."""

# ruff: noqa: E501 - messages stand whole, so that they can be searched for

from __future__ import annotations

import json

import pytest

from retia.config import parse as parsing
from retia.config.codes import Code
from retia.config.document import to_document
from retia.config.parse import parse_document
from retia.model.finding import Level
from retia.model.objects import ObjectRef
from tests.support.documents import document, findings_of, parse_text

ROUTE = "hosts: [reviews]\nhttp: [{route: [{destination: {host: reviews}}]}]"
GOOD = document("VirtualService", ROUTE, "reviews", labels="{app: shop}")


def lines_of(*texts: str | bytes) -> list[str]:
    return [str(each) for each in parse_text(*texts).findings]


def test_an_object() -> None:
    (obj,) = parse_text(GOOD).objects
    assert str(obj.ref) == "VirtualService/default/reviews"
    assert obj.labels == (("app", "shop"),)
    assert obj.spec.hosts == ("reviews",)
    assert hash(obj)


def test_every_error_of_every_document_has_its_place() -> None:
    first = document(
        "VirtualService", "hosts: [a_b]\nhttp:\n- timout: 1s\n  timeout: -1s\n  route: []", "cart", "shop"
    )
    second = "kind: Foo\napiVersion: v1\n"
    *said, syntax = lines_of(first + "---\n" + second, "a: [")
    assert said == [
        "a.yaml:5: VirtualService/shop/cart: spec.hosts[0]: is a_b; it must be a host name: letters, digits and - "
        "in labels of at most 63, or * as its first label [RT0104]",
        "a.yaml:7: VirtualService/shop/cart: spec.http[0].timout: is no field of HTTPRoute; did you mean timeout? "
        "[RT0101]",
        "a.yaml:8: VirtualService/shop/cart: spec.http[0].timeout: is -1s; it must be 1ms or more [RT0104]",
        "a.yaml:11: kind: is Foo, which v1 does not have [RT0005]",
    ]
    assert syntax.startswith("b.yaml:")
    assert "this is not YAML: " in syntax


def test_a_document_with_an_error_gives_no_object() -> None:
    parsed = parse_text(GOOD + "---\n" + document("VirtualService", "hosts: [x]", "broken"))
    assert [obj.ref.name for obj in parsed.objects] == ["reviews"]
    assert not parsed.ok


def test_a_warning_does_not_cost_the_object() -> None:
    text = document("DestinationRule", "host: a\ntrafficPolicy: {loadBalancer: {simple: LEAST_CONN}}")
    parsed = parse_text(text)
    assert [each.level for each in parsed.findings] == [Level.WARNING]
    assert len(parsed.objects) == 1
    assert parsed.ok


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("foo", ": is foo; it must be an object with apiVersion and kind"),
        ("- a", ": is a list; it must be an object with apiVersion and kind"),
        ("kind: Service", "apiVersion: is missing"),
        ("apiVersion: v1", "kind: is missing"),
        ("{apiVersion: 1, kind: Service}", "apiVersion: is 1; it must be text"),
        (
            "{apiVersion: networking.istio.io/v1, kind: Foo}",
            "kind: is Foo, which networking.istio.io/v1 does not have",
        ),
        (
            "{apiVersion: example.com/v1, kind: Foo}",
            "kind: is Foo of example.com/v1, which is not known here",
        ),
        (
            "{apiVersion: networking.istio.oi/v1, kind: VirtualService}",
            "kind: is VirtualService of networking.istio.oi/v1; VirtualService is of networking.istio.io/v1",
        ),
        (
            "{apiVersion: security.istio.io/v2, kind: PeerAuthentication}",
            "apiVersion: is security.istio.io/v2; for PeerAuthentication it must be one of security.istio.io/v1, "
            "security.istio.io/v1beta1, security.istio.io/v1alpha3",
        ),
    ],
)
def test_what_is_no_object_of_a_known_kind(text: str, said: str) -> None:
    assert [f"{each.field}: {each.message}" for each in parse_text(text).findings] == [said]
    assert not parse_text(text).ok


@pytest.mark.parametrize(
    ("version", "kind"),
    [
        ("security.istio.io/v1", "AuthorizationPolicy"),
        ("security.istio.io/v1", "RequestAuthentication"),
        ("telemetry.istio.io/v1", "Telemetry"),
        ("extensions.istio.io/v1alpha1", "WasmPlugin"),
        ("gateway.networking.x-k8s.io/v1alpha1", "XMesh"),
        ("retia.dev/v1alpha1", "Anything"),
    ],
)
def test_mesh_kinds_to_come_are_errors(version: str, kind: str) -> None:
    (said,) = parse_text(f"{{apiVersion: {version}, kind: {kind}, metadata: {{name: x}}}}").findings
    assert said.code == Code.UNSUPPORTED_KIND
    assert said.level is Level.ERROR
    assert said.message == f"is {kind} of {version}, which is not supported by this version"


@pytest.mark.parametrize(
    ("version", "kind"),
    [
        ("v1", "Node"),
        ("v1", "ServiceAccount"),
        ("apps/v1", "Deployment"),
        ("rbac.authorization.k8s.io/v1", "Role"),
    ],
)
def test_other_kinds_of_kubernetes_are_skipped(version: str, kind: str) -> None:
    (said,) = parse_text(f"{{apiVersion: {version}, kind: {kind}, metadata: {{name: x}}}}").findings
    assert (said.code, said.level) == (Code.SKIPPED_KIND, Level.INFO)
    assert str(said.ref) == f"{kind}/default/x"


@pytest.mark.parametrize("version", ["v1", "v1beta1", "v1alpha3"])
def test_all_of_istios_versions_are_alike(version: str) -> None:
    assert parse_text(GOOD.replace("/v1\n", f"/{version}\n")).objects == parse_text(GOOD).objects


def test_a_list_is_opened() -> None:
    items = [json.loads(json.dumps(parse_text(GOOD).documents[0].raw)), {"apiVersion": "v1", "kind": "Pod"}]
    text = json.dumps(
        {"apiVersion": "v1", "kind": "List", "items": items, "metadata": {"resourceVersion": ""}}
    )
    parsed = parse_text(text)
    assert [str(obj.ref) for obj in parsed.objects] == ["VirtualService/default/reviews"]
    assert [each.code for each in parsed.findings] == [Code.SKIPPED_KIND]


def test_fields_in_a_list_are_named_from_their_object() -> None:
    bad = document("VirtualService", "hosts: [a_b]\nhttp: [{redirect: {uri: /}}]").replace("\n", "\n    ")
    (said,) = parse_text(f"apiVersion: v1\nkind: List\nitems:\n  - {bad}").findings
    assert (said.field, said.origin.line) == ("spec.hosts[0]", 8)


def test_what_a_server_adds_is_dropped() -> None:
    added = """
      uid: 5c1
      resourceVersion: "12"
      generation: 3
      creationTimestamp: 2024-01-01T00:00:00Z
      managedFields: [{manager: kubectl}]
      finalizers: [x]
      ownerReferences: [{}]
    """
    text = GOOD.replace(
        "metadata: {name: reviews, namespace: default, labels: {app: shop}}",
        f"metadata:{added}  name: reviews\n      labels: {{app: shop}}",
    )
    text += "status: {conditions: []}\n"
    assert parse_text(text).objects == parse_text(GOOD).objects
    assert not parse_text(text).findings


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ("{}", "metadata.name: is missing"),
        ("{name: 5}", "metadata.name: is 5; it must be text (put it in quotes)"),
        (
            "{name: Reviews}",
            "metadata.name: is Reviews; it must be a DNS name in lower case: letters, digits and -, the ends not -",
        ),
        ("{name: a, namespace: a.b}", "metadata.namespace: is a.b; it must be a DNS label in lower case"),
        ("{name: a, nmespace: b}", "metadata.nmespace: is no field of Metadata; did you mean namespace?"),
        ("{name: a, labels: {x: 1}}", "metadata.labels.x: is 1; it must be text (put it in quotes)"),
        (
            "{name: a, labels: {x: a b}}",
            "metadata.labels: has the value 'a b' for x; a value is at most 63 letters, digits, - _ and .",
        ),
    ],
)
def test_metadata(metadata: str, said: str) -> None:
    text = GOOD.replace("{name: reviews, namespace: default, labels: {app: shop}}", metadata)
    assert [f"{each.field}: {each.message}" for each in parse_text(text).findings] == [said]


def test_an_unknown_field_beside_spec() -> None:
    assert [each.field for each in parse_text(GOOD + "sepc: {}\n").findings] == ["sepc"]


def test_the_root_namespace_of_istio_is_ours() -> None:
    (obj,) = parse_text(
        document("PeerAuthentication", "mtls: {mode: STRICT}", "default", "istio-system")
    ).objects
    assert obj.ref == ObjectRef("PeerAuthentication", "retia-system", "default")  # type: ignore[arg-type]


def test_an_object_defined_twice_is_taken_from_neither() -> None:
    parsed = parse_text(GOOD, "# first\n" + GOOD)
    assert parsed.objects == ()
    assert [str(each) for each in parsed.findings] == [
        "a.yaml:1: VirtualService/default/reviews: is defined 2 times, also in b.yaml:2; keep one of them [RT0007]",
        "b.yaml:2: VirtualService/default/reviews: is defined 2 times, also in a.yaml:1; keep one of them [RT0007]",
    ]


def test_bytes_are_utf_8_with_or_without_a_mark() -> None:
    assert parse_text(b"\xef\xbb\xbf" + GOOD.encode()).objects == parse_text(GOOD).objects
    assert lines_of(b"a: 1\nb: \xff") == ["a.yaml:2: the text is not UTF-8 (byte 8) [RT0009]"]


def test_null_is_absent() -> None:
    assert findings_of("VirtualService", ROUTE + "\ntls:\nexportTo: null") == []
    assert findings_of("VirtualService", ROUTE + "\nfoo: null") == [
        "spec.foo: is no field of VirtualService; its fields are hosts, gateways, http, tls, tcp, exportTo"
    ]


def test_python_names_are_not_users_names() -> None:
    assert findings_of("VirtualService", ROUTE + "\nexport_to: ['*']") == [
        "spec.export_to: is no field of VirtualService; did you mean exportTo?"
    ]


def test_the_same_mistake_many_times_is_cut_short() -> None:
    rules = "\n".join("- {foo: 1, route: [{destination: {host: a}}]}" for _ in range(500))
    parsed = parse_text(document("VirtualService", f"hosts: [a]\nhttp:\n{rules}"))
    assert len(parsed.findings) == parsing.MAX_FINDINGS + 1
    assert any(each.message == "has 300 more findings, which are not shown" for each in parsed.findings)


def test_objects_come_sorted_with_their_documents() -> None:
    texts = [document("DestinationRule", "host: x", "b"), document("DestinationRule", "host: x", "a"), GOOD]
    parsed = parse_text(*texts)
    assert [obj.ref.name for obj in parsed.objects] == ["a", "b", "reviews"]
    assert [doc.ref for doc in parsed.documents] == [obj.ref for obj in parsed.objects]
    assert (
        parsed == parse_text("---\n".join(texts)) or parsed.objects == parse_text("---\n".join(texts)).objects
    )


def test_a_document_that_is_data_already() -> None:
    (obj,) = parse_text(GOOD).objects
    assert parse_document(to_document(obj)).objects == (obj,)
    assert [each.code for each in parse_document([]).findings] == [Code.NOT_AN_OBJECT]
