"""The rules of the Gateway API's kinds: what is refused, and in which words."""

# ruff: noqa: E501 - objects and messages stand whole, so that they can be searched for

from __future__ import annotations

import pytest

from tests.support.documents import findings_of, parse_text

ROUTE = "parentRefs: [{name: gw}]\n"


def rule(text: str) -> str:
    return f"{ROUTE}rules: [{{{text}}}]"


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (rule("backendRefs: [{name: a}]"), "spec.rules[0].backendRefs[0].port: is missing; a Service needs one"),
        (rule("matches: [{path: {value: a}}]"), "spec.rules[0].matches[0].path.value: is 'a'; it must start with /"),
        (rule("matches: [{path: {value: /a//b}}]"), "spec.rules[0].matches[0].path.value: is '/a//b'; it must not hold //"),
        (rule("matches: [{path: {value: /a/..}}]"), "spec.rules[0].matches[0].path.value: is '/a/..'; it must not hold /.."),
        (rule("matches: [{headers: [{name: a, value: b}, {name: A, value: c}]}]"), "spec.rules[0].matches[0].headers[1].name: is a, which is there already"),
        (rule("matches: [{method: GRAB}]"), "spec.rules[0].matches[0].method: is GRAB; it must be one of GET, HEAD, POST, PUT, DELETE, CONNECT, OPTIONS, TRACE, PATCH"),
        (rule("filters: [{type: RequestRedirect}]"), "spec.rules[0].filters[0].requestRedirect: is missing; type RequestRedirect needs it"),
        (rule("filters: [{type: CORS, cors: {}, urlRewrite: {}}]"), "spec.rules[0].filters[0].urlRewrite: must not be given where type is CORS"),
        (rule("filters: [{type: RequestRedirect, requestRedirect: {}}, {type: URLRewrite, urlRewrite: {}}]"), "spec.rules[0].filters: has RequestRedirect and URLRewrite, which exclude one another"),
        (rule("filters: [{type: RequestRedirect, requestRedirect: {}}], backendRefs: [{name: a, port: 80}]"), "spec.rules[0].backendRefs: must not stand beside a RequestRedirect filter"),
        (rule("matches: [{path: {type: Exact, value: /a}}], filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /b}}}]"), "spec.rules[0].filters[0]: replaces the matched prefix; that needs exactly one match of the rule, and its path to be a PathPrefix"),
        (rule("timeouts: {request: 1s, backendRequest: 2s}"), "spec.rules[0].timeouts.backendRequest: must not be longer than request"),
        (rule("sessionPersistence: {cookie: {lifetimeType: Permanent}}"), "spec.rules[0].sessionPersistence.absoluteTimeout: is missing; a Permanent cookie needs it"),
        (rule("filters: [{type: RequestMirror, requestMirror: {backendRef: {name: a, port: 1}, percent: 1, fraction: {numerator: 1}}}]"), "spec.rules[0].filters[0].requestMirror.fraction: must not stand beside percent: both say the share"),
        ("parentRefs: [{name: a}, {name: a}]", "spec.parentRefs[1]: is there already; name another sectionName or port"),
    ],
)  # fmt: skip
def test_a_route_that_is_wrong(spec: str, said: str) -> None:
    assert said in findings_of("HTTPRoute", spec)


@pytest.mark.parametrize(
    ("listeners", "said"),
    [
        ("[]", "spec.listeners: must have at least one item"),
        ("[{name: a, port: 80, protocol: HTTP, tls: {mode: Passthrough}}]", "spec.listeners[0].tls: must not be given for protocol HTTP"),
        ("[{name: a, port: 443, protocol: HTTPS, tls: {mode: Passthrough}}]", "spec.listeners[0].tls.mode: is Passthrough; protocol HTTPS needs Terminate"),
        ("[{name: a, port: 443, protocol: TLS}]", "spec.listeners[0].tls: is missing; protocol TLS needs a mode"),
        ("[{name: a, port: 443, protocol: HTTPS, tls: {}}]", "spec.listeners[0].tls.certificateRefs: is missing; mode Terminate needs a certificate"),
        ("[{name: a, port: 80, protocol: TCP, hostname: a.example}]", "spec.listeners[0].hostname: must not be given for protocol TCP"),
        ("[{name: a, port: 80, protocol: HTTP}, {name: a, port: 81, protocol: HTTP}]", "spec.listeners[1].name: is a, which is there already"),
        ("[{name: a, port: 80, protocol: HTTP}, {name: b, port: 80, protocol: HTTP}]", "spec.listeners[1]: has the port, protocol and hostname of another listener; one must differ"),
    ],
)  # fmt: skip
def test_a_gateway_that_is_wrong(listeners: str, said: str) -> None:
    text = (
        "{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: it},"
        f" spec: {{gatewayClassName: retia, listeners: {listeners}}}}}"
    )
    assert said in [f"{each.field}: {each.message}" for each in parse_text(text).findings]


@pytest.mark.parametrize(
    ("kind", "spec", "said"),
    [
        ("GRPCRoute", "rules: [{matches: [{method: {}}]}]", "spec.rules[0].matches[0].method: must have one or both of service, method"),
        ("GRPCRoute", "rules: [{filters: [{type: CORS}]}]", "spec.rules[0].filters[0].type: is CORS, which a GRPCRoute does not have"),
        ("TCPRoute", "rules: [{backendRefs: []}]", "spec.rules[0].backendRefs: must have at least one item"),
        ("TLSRoute", "hostnames: [10.0.0.1]\nrules: [{backendRefs: [{name: a, port: 1}]}]", "spec.hostnames[0]: is 10.0.0.1; it must not be an address"),
        ("BackendTLSPolicy", 'targetRefs: [{group: "", kind: Service, name: a}]\nvalidation: {hostname: a}', "spec.validation: must have one of caCertificateRefs, wellKnownCACertificates"),
        ("HTTPRoute", "useDefaultGateways: All", "spec.useDefaultGateways: is All, which is not supported by this version; no gateway of this mesh takes routes by default; name it in parentRefs"),
    ],
)  # fmt: skip
def test_other_kinds_that_are_wrong(kind: str, spec: str, said: str) -> None:
    assert said in findings_of(kind, spec)
