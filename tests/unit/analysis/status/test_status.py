"""What the status of Gateway API objects says, by the reasons of the specification."""

# ruff: noqa: E501 - objects stand on a line each

from __future__ import annotations

from typing import Any

import pytest

from retia.analysis.status import NOBODY, Serving, status_of
from retia.model.snapshot import PlainView
from retia.policy.gateway_api.names import GATEWAY
from tests.support.world import World

SERVED = Serving(("192.0.2.1",), 1)
GATEWAY_TEXT = """
    apiVersion: gateway.networking.k8s.io/v1
    kind: Gateway
    metadata: {name: gw}
    spec: {gatewayClassName: retia, listeners: [{name: http, port: 80, protocol: HTTP}]}
"""


def status(
    text: str, kind: str, name: str, *, namespace: str = "default", serving: Serving = SERVED
) -> dict[str, Any]:
    """The status of one object of some, in a mesh with the services ``a`` and ``b`` and ``db``."""
    world = World().service("a", 80).service("b", 80, "grpc").service("db", 5432, "tcp").apply(text)
    mesh = world.client("a")
    view = PlainView(mesh.snapshot, mesh.proxy)
    obj = view.fact("config", kind, namespace, name)
    assert obj is not None
    found = status_of(view, obj, 7, serving)
    assert found is not None
    return found


def reasons(conditions: list[dict[str, Any]]) -> dict[str, str]:
    """``{"Accepted": "True Accepted"}``."""
    assert all(each["observedGeneration"] == 7 for each in conditions)
    return {each["type"]: f"{each['status']} {each['reason']}" for each in conditions}


def parent(text: str, kind: str = "HTTPRoute", name: str = "r", index: int = 0) -> dict[str, str]:
    return reasons(status(text, kind, name)["parents"][index]["conditions"])


def route(parents: str, rules: str = "[{backendRefs: [{name: a, port: 80}]}]", more: str = "") -> str:
    return (
        GATEWAY_TEXT
        + f"""
    ---
    apiVersion: gateway.networking.k8s.io/v1
    kind: HTTPRoute
    metadata: {{name: r}}
    spec: {{parentRefs: {parents}, rules: {rules}{more}}}
"""
    )


# -- classes and Gateways ----------------------------------------------------------------------------------


def test_a_class_of_ours_is_accepted() -> None:
    text = """
        apiVersion: gateway.networking.k8s.io/v1
        kind: GatewayClass
        metadata: {name: c}
        spec: {controllerName: retia.dev/gateway-controller}
    """
    found = status(text, "GatewayClass", "c", namespace="")
    assert reasons(found["conditions"]) == {
        "Accepted": "True Accepted",
        "SupportedVersion": "True SupportedVersion",
    }
    names = [each["name"] for each in found["supportedFeatures"]]
    assert names == sorted(names)
    assert "HTTPRoute" in names


def test_a_class_of_others_is_left_alone() -> None:
    text = """
        apiVersion: gateway.networking.k8s.io/v1
        kind: GatewayClass
        metadata: {name: c}
        spec: {controllerName: example.com/other}
    """
    assert status(text, "GatewayClass", "c", namespace="") == {}


def test_a_gateway_that_is_served() -> None:
    found = status(GATEWAY_TEXT, GATEWAY, "gw")
    assert reasons(found["conditions"]) == {
        "Accepted": "True Accepted",
        "Programmed": "True Programmed",
        "ResolvedRefs": "True ResolvedRefs",
    }
    assert found["addresses"] == [{"type": "IPAddress", "value": "192.0.2.1"}]
    (listener,) = found["listeners"]
    assert listener["attachedRoutes"] == 0
    assert [each["kind"] for each in listener["supportedKinds"]] == ["HTTPRoute", "GRPCRoute"]
    assert reasons(listener["conditions"]) == {
        "Accepted": "True Accepted",
        "Conflicted": "False NoConflicts",
        "ResolvedRefs": "True ResolvedRefs",
        "Programmed": "True Programmed",
    }


@pytest.mark.parametrize(
    ("serving", "said"),
    [
        (NOBODY, "False AddressNotAssigned"),
        (Serving(("192.0.2.1",), 1, pending=True), "False Pending"),
        (Serving(("192.0.2.1",), 1, rejected="bad listener"), "False Invalid"),
    ],
)
def test_programmed_is_what_the_proxies_say(serving: Serving, said: str) -> None:
    found = status(GATEWAY_TEXT, GATEWAY, "gw", serving=serving)
    assert reasons(found["conditions"])["Programmed"] == said


def gateway(listeners: str) -> str:
    return GATEWAY_TEXT.replace("[{name: http, port: 80, protocol: HTTP}]", listeners)


@pytest.mark.parametrize(
    ("listeners", "kind", "said"),
    [
        ("[{name: x, port: 80, protocol: HTTP}, {name: y, port: 80, protocol: TCP}]", "Conflicted", "True ProtocolConflict"),
        ("[{name: x, port: 80, protocol: HTTP}, {name: y, port: 80, protocol: TCP}]", "Accepted", "False ProtocolConflict"),
        ("[{name: x, port: 80, protocol: example.com/x}]", "Accepted", "False UnsupportedProtocol"),
        ("[{name: x, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: none}]}}]", "ResolvedRefs", "False InvalidCertificateRef"),
        ("[{name: x, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: c, namespace: far}]}}]", "ResolvedRefs", "False RefNotPermitted"),
        ("[{name: x, port: 443, protocol: HTTPS, tls: {certificateRefs: [{group: e.com, kind: Vault, name: c}]}}]", "ResolvedRefs", "False InvalidCertificateRef"),
        ("[{name: x, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: none}]}}]", "Programmed", "False Invalid"),
        ("[{name: x, port: 80, protocol: HTTP, allowedRoutes: {kinds: [{kind: TCPRoute}]}}]", "ResolvedRefs", "False InvalidRouteKinds"),
    ],
)  # fmt: skip
def test_a_listener_that_is_wrong(listeners: str, kind: str, said: str) -> None:
    found = status(gateway(listeners), GATEWAY, "gw")["listeners"][0]
    assert reasons(found["conditions"])[kind] == said


def test_a_gateway_without_a_listener_that_is_accepted() -> None:
    found = status(gateway("[{name: x, port: 80, protocol: example.com/x}]"), GATEWAY, "gw")
    said = reasons(found["conditions"])
    assert (said["Accepted"], said["Programmed"]) == ("False ListenersNotValid", "False Invalid")


def test_a_gateway_with_some_listeners_refused_is_accepted_and_says_so() -> None:
    text = gateway("[{name: x, port: 80, protocol: example.com/x}, {name: y, port: 81, protocol: HTTP}]")
    assert reasons(status(text, GATEWAY, "gw")["conditions"])["Accepted"] == "True ListenersNotValid"


def test_wrong_kinds_are_left_out_of_those_supported() -> None:
    text = gateway("[{name: x, port: 80, protocol: HTTP, allowedRoutes: {kinds: [{kind: TCPRoute}, {kind: HTTPRoute}]}}]")  # fmt: skip
    (listener,) = status(text, GATEWAY, "gw")["listeners"]
    assert [each["kind"] for each in listener["supportedKinds"]] == ["HTTPRoute"]


def test_routes_are_counted_once_at_each_listener() -> None:
    text = route("[{name: gw}, {name: gw, sectionName: http}]").replace(
        "[{name: gw}, {name: gw, sectionName: http}]", "[{name: gw}]"
    )
    assert status(text, GATEWAY, "gw")["listeners"][0]["attachedRoutes"] == 1


# -- routes ------------------------------------------------------------------------------------------------


def test_a_route_that_is_attached() -> None:
    text = route("[{name: gw, sectionName: http}]")
    found = status(text, "HTTPRoute", "r")["parents"][0]
    assert found["controllerName"] == "retia.dev/gateway-controller"
    assert found["parentRef"]["sectionName"] == "http"
    assert parent(text) == {"Accepted": "True Accepted", "ResolvedRefs": "True ResolvedRefs"}


@pytest.mark.parametrize(
    ("parents", "more", "said"),
    [
        ("[{name: gw, sectionName: none}]", "", "False NoMatchingParent"),
        ("[{name: gw, port: 81}]", "", "False NoMatchingParent"),
        ('[{group: "", kind: Service, name: none}]', "", "False NoMatchingParent"),
        ('[{group: "", kind: Service, name: a, port: 81}]', "", "False NoMatchingParent"),
        ('[{group: "", kind: Service, name: db}]', "", "False NotAllowedByListeners"),
    ],
)
def test_a_route_that_its_parent_does_not_take(parents: str, more: str, said: str) -> None:
    assert parent(route(parents, more=more))["Accepted"] == said


def test_a_route_of_a_namespace_that_is_not_let_in() -> None:
    text = route("[{name: gw, namespace: default}]").replace(
        "metadata: {name: r}", "metadata: {name: r, namespace: far}"
    )
    found = status(text, "HTTPRoute", "r", namespace="far")["parents"][0]
    assert reasons(found["conditions"])["Accepted"] == "False NotAllowedByListeners"


def test_a_route_for_other_hosts() -> None:
    text = route("[{name: gw}]", more=", hostnames: [x.example]").replace(
        "protocol: HTTP}", "protocol: HTTP, hostname: y.example}"
    )
    assert parent(text)["Accepted"] == "False NoMatchingListenerHostname"


def test_parents_of_others_have_no_entry() -> None:
    assert status(route("[{name: elsewhere}]"), "HTTPRoute", "r") == {"parents": []}


@pytest.mark.parametrize(
    ("backend", "said"),
    [
        ("{name: none, port: 80}", "False BackendNotFound"),
        ("{name: a, port: 81}", "False BackendNotFound"),
        ("{name: a, namespace: far, port: 80}", "False RefNotPermitted"),
        ("{group: e.com, kind: Bucket, name: a}", "False InvalidKind"),
        ("{name: db, port: 5432}", "False UnsupportedProtocol"),
        ("{name: a, port: 80}", "True ResolvedRefs"),
    ],
)
def test_a_backend_that_is_wrong(backend: str, said: str) -> None:
    found = parent(route("[{name: gw}]", f"[{{backendRefs: [{backend}]}}]"))
    assert found == {"Accepted": "True Accepted", "ResolvedRefs": said}


def test_a_rule_that_cannot_be_done_beside_one_that_can() -> None:
    rules = (
        "[{filters: [{type: ExtensionRef, extensionRef: {group: e.com, kind: X, name: x}}],"
        " backendRefs: [{name: a, port: 80}]}, {backendRefs: [{name: a, port: 80}]}]"
    )
    found = parent(route("[{name: gw}]", rules))
    assert found["PartiallyInvalid"] == "True UnsupportedValue"
    assert found["ResolvedRefs"] == "False InvalidKind"


def test_the_younger_of_two_kinds_for_one_host_is_refused() -> None:
    text = (
        route("[{name: gw}]", more=", hostnames: [x.example]")
        + """
    ---
    apiVersion: gateway.networking.k8s.io/v1
    kind: GRPCRoute
    metadata: {name: g}
    spec: {parentRefs: [{name: gw}], hostnames: [x.example], rules: [{backendRefs: [{name: b, port: 80}]}]}
"""
    )
    assert parent(text)["Accepted"] == "True Accepted"
    assert parent(text, "GRPCRoute", "g")["Accepted"] == "False NotAllowedByListeners"


def test_a_route_of_the_mesh_is_answered_for_by_the_mesh() -> None:
    text = route('[{group: "", kind: Service, name: a}]')
    found = status(text, "HTTPRoute", "r")["parents"][0]
    assert found["controllerName"] == "retia.dev/mesh-controller"
    assert reasons(found["conditions"])["Accepted"] == "True Accepted"


# -- ListenerSets and policies -----------------------------------------------------------------------------

SET = """
    ---
    apiVersion: gateway.networking.k8s.io/v1
    kind: ListenerSet
    metadata: {name: s}
    spec: {parentRef: {name: gw}, listeners: [{name: more, port: 81, protocol: HTTP}, {name: same, port: 80, protocol: HTTP}]}
"""


def test_a_listener_set_that_is_not_allowed() -> None:
    found = status(GATEWAY_TEXT + SET, "ListenerSet", "s")
    assert reasons(found["conditions"]) == {"Accepted": "False NotAllowed", "Programmed": "False NotAllowed"}
    assert status(GATEWAY_TEXT + SET, GATEWAY, "gw")["attachedListenerSets"] == 0


def test_a_listener_set_loses_to_its_gateway() -> None:
    text = GATEWAY_TEXT.replace(
        "gatewayClassName: retia", "gatewayClassName: retia, allowedListeners: {namespaces: {from: Same}}"
    )
    found = status(text + SET, "ListenerSet", "s")
    assert reasons(found["conditions"])["Accepted"] == "True ListenersNotValid"
    more, same = (reasons(each["conditions"]) for each in found["listeners"])
    assert more["Accepted"] == "True Accepted"
    assert same["Conflicted"] == "True HostnameConflict"
    assert status(text + SET, GATEWAY, "gw")["attachedListenerSets"] == 1
    own = status(text + SET, GATEWAY, "gw")["listeners"][0]
    assert reasons(own["conditions"])["Conflicted"] == "False NoConflicts"


@pytest.mark.parametrize(
    ("target", "trust", "accepted", "resolved"),
    [
        ("name: a", "wellKnownCACertificates: System", "True Accepted", "True ResolvedRefs"),
        ("name: none", "wellKnownCACertificates: System", "False TargetNotFound", "True ResolvedRefs"),
        ("name: a, sectionName: none", "wellKnownCACertificates: System", "False TargetNotFound", "True ResolvedRefs"),
        ("name: a", 'caCertificateRefs: [{group: "", kind: ConfigMap, name: none}]', "False NoValidCACertificate", "False InvalidCACertificateRef"),
        ("name: a", "caCertificateRefs: [{group: e.com, kind: Vault, name: none}]", "False NoValidCACertificate", "False InvalidKind"),
    ],
)  # fmt: skip
def test_a_policy_for_tls_to_a_backend(target: str, trust: str, accepted: str, resolved: str) -> None:
    text = f"""
        apiVersion: gateway.networking.k8s.io/v1
        kind: BackendTLSPolicy
        metadata: {{name: p}}
        spec: {{targetRefs: [{{group: "", kind: Service, {target}}}], validation: {{hostname: a.example, {trust}}}}}
    """
    (ancestor,) = status(text, "BackendTLSPolicy", "p")["ancestors"]
    assert reasons(ancestor["conditions"]) == {"Accepted": accepted, "ResolvedRefs": resolved}


def test_kinds_without_a_status_have_none() -> None:
    text = """
        apiVersion: gateway.networking.k8s.io/v1
        kind: ReferenceGrant
        metadata: {name: g}
        spec: {from: [{group: g.io, kind: HTTPRoute, namespace: x}], to: [{group: "", kind: Service}]}
    """
    mesh = World().service("a").apply(text).client("a")
    obj = mesh.view.fact("config", "ReferenceGrant", "default", "g")
    assert status_of(PlainView(mesh.snapshot, mesh.proxy), obj, 1) is None
