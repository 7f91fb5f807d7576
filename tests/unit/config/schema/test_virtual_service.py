"""VirtualService: Istio's rules, one wrong thing at a time."""

# ruff: noqa: E501 - messages stand whole, so that they can be searched for

from __future__ import annotations

import pytest

from tests.support.documents import findings_of, spec_of

TO = "route: [{destination: {host: a}}]"


def rule(text: str) -> list[str]:
    """What is said about one HTTP rule (a flow mapping without its braces)."""
    prefix = "spec.http[0]"
    said = findings_of("VirtualService", f"hosts: [a]\nhttp: [{{{text}}}]")
    return [each.removeprefix(prefix).removeprefix(".") for each in said]


def whole(text: str) -> list[str]:
    return findings_of("VirtualService", text)


def test_everything_that_is_applied_is_read() -> None:
    spec = spec_of(
        "VirtualService",
        """
        hosts: [Reviews.Default.svc.cluster.local., "*.shop.example", 10.0.0.1]
        gateways: [mesh]
        exportTo: ["."]
        http:
        - name: all
          match:
          - uri: {prefix: /api}
            scheme: {exact: https}
            method: {regex: GET|HEAD}
            authority: {prefix: a}
            headers: {x-user: {exact: jason}, x-any: {}, ":path": {prefix: /}}
            withoutHeaders: {x-no: {regex: "*"}}
            queryParams: {q: {exact: ""}}
            port: 9080
            sourceLabels: {app: web}
            sourceNamespace: shop
            ignoreUriCase: true
          route:
          - destination: {host: reviews, subset: v1, port: {number: 9080}}
            weight: 90
            headers: {request: {set: {Host: other}}, response: {add: {x-b: "%PROTOCOL%"}}}
          - destination: {host: reviews, subset: v2}
            weight: 10
          timeout: 1m30s
          retries: {attempts: 3, perTryTimeout: 250ms, retryOn: "5xx,connect-failure,503", backoff: 10ms}
          fault:
            delay: {fixedDelay: 5s, percentage: {value: 0.1}}
            abort: {grpcStatus: NOT_FOUND, percentage: {value: 100}}
          rewrite: {uriRegexRewrite: {match: "^/a/(.*)$", rewrite: "/b/\\\\1"}, authority: x}
          mirror: {host: shadow}
          mirrorPercentage: {value: 12.5}
          headers: {request: {remove: [x-c]}}
        - redirect: {uri: /, authority: b, redirectCode: 308, derivePort: FROM_REQUEST_PORT}
        - directResponse: {status: 503, body: {bytes: aGk=}}
        """.replace("headers: {request: {set: {Host: other}},", "headers: {request: {set: {x-d: other}},"),
    )
    rule, redirect, answer = spec.http
    assert spec.hosts == ("reviews.default.svc.cluster.local", "*.shop.example", "10.0.0.1")
    assert rule.timeout == 90.0
    assert rule.retries.per_try_timeout == 0.25
    assert rule.retries.policies == ("5xx", "connect-failure", "503")
    assert rule.fault.abort.grpc_code == 5
    assert dict(rule.match[0].headers)["x-any"].is_present
    assert rule.match[0].source_labels == (("app", "web"),)
    assert [(m.destination.host, m.percent) for m in rule.mirror_policies] == [("shadow", 12.5)]
    assert redirect.redirect.redirect_code == 308
    assert answer.direct_response.body.content == b"hi"
    assert hash(spec) == hash(spec.model_copy())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("timeout: 1s", ": must have a route, redirect or directResponse"),
        (f"{TO}, redirect: {{uri: /}}", "route: must not stand beside redirect"),
        (f"{TO}, directResponse: {{status: 200}}", "route: must not stand beside directResponse"),
        (
            "redirect: {uri: /}, directResponse: {status: 200}",
            "directResponse: must not stand beside redirect",
        ),
        ("redirect: {uri: /}, rewrite: {uri: /}", "rewrite: must not stand beside redirect"),
        (
            "redirect: {uri: /}, fault: {abort: {httpStatus: 500}}",
            "fault: must not stand beside redirect",
        ),
        (
            f"{TO}, mirror: {{host: a}}, mirrors: [{{destination: {{host: a}}}}]",
            "mirrors: must not stand beside mirror",
        ),
        (f"{TO}, timeout: 0s", "timeout: is 0s; it must be 1ms or more"),
        (f"{TO}, timeout: 1.5ms", "timeout: is 1.5ms; it must be a whole number of milliseconds"),
        (
            f"{TO}, timeout: 5",
            "timeout: is 5; it must be a duration with a unit, such as 100ms, 2.5s, 1m or 1h30m",
        ),
        (
            f"{TO}, timeout: fast",
            "timeout: is fast; it must be a duration with a unit, such as 100ms, 2.5s, 1m or 1h30m",
        ),
        (f"{TO}, rewrite: {{}}", "rewrite: must have a uri, uriRegexRewrite or authority"),
        (
            f"{TO}, rewrite: {{uri: /, uriRegexRewrite: {{match: a, rewrite: b}}}}",
            "rewrite.uriRegexRewrite: must not stand beside uri: uri and uriRegexRewrite exclude one another",
        ),
        (
            f"{TO}, rewrite: {{uriRegexRewrite: {{match: a(b), rewrite: '\\2'}}}}",
            "rewrite.uriRegexRewrite.rewrite: refers to group 2, but match has 1",
        ),
        (
            f"{TO}, rewrite: {{authority: x}}, headers: {{request: {{set: {{Host: y}}}}}}",
            "headers.request: sets the authority, which is set to 'x' already; it can be set once",
        ),
        (
            f"{TO}, headers: {{response: {{set: {{Host: y}}}}}}",
            "headers.response.set.Host: names Host, which can be set and added on requests only",
        ),
        (
            f'{TO}, headers: {{request: {{remove: [":path"]}}}}',
            "headers.request.remove[0]: names :path; headers that start with : cannot be changed",
        ),
        (
            f"{TO}, headers: {{request: {{add: {{x: 50%}}}}}}",
            "headers.request.add.x: is 50%; it must hold % only as %% or as a command such as %REQ(x-user)%",
        ),
        (f"{TO}, retries: {{attempts: -1}}", "retries.attempts: is -1; it must be 0 or more"),
        (
            f"{TO}, retries: {{perTryTimeout: 1s}}",
            "retries.attempts: is 0, which allows no retry, yet other fields say how to retry",
        ),
        (
            f"{TO}, retries: {{attempts: 1, retryOn: '5xx,often'}}",
            "retries.retryOn: has 'often'; it must list Envoy's retry policies and status codes",
        ),
        (f"{TO}, fault: {{}}", "fault: must have a delay or an abort"),
        (f"{TO}, fault: {{delay: {{}}}}", "fault.delay: must have one of fixedDelay, exponentialDelay"),
        (
            f"{TO}, fault: {{abort: {{httpStatus: 500, grpcStatus: OK}}}}",
            "fault.abort.grpcStatus: must not stand beside httpStatus: httpStatus and grpcStatus exclude one another",
        ),
        (
            f"{TO}, fault: {{abort: {{httpStatus: 700}}}}",
            "fault.abort.httpStatus: is 700; it must be 599 or less",
        ),
        (
            f"{TO}, fault: {{abort: {{grpcStatus: FINE}}}}",
            "fault.abort.grpcStatus: is 'FINE'; it must be the name of a gRPC status, such as NOT_FOUND",
        ),
        (
            f"{TO}, fault: {{delay: {{fixedDelay: 1s, percentage: {{value: 0.00001}}}}}}",
            "fault.delay.percentage.value: is 1e-05; it must be 0, or 0.0001 or more",
        ),
        (f"{TO}, mirrorPercentage: {{value: 101}}", "mirrorPercentage.value: is 101; it must be 100 or less"),
        ("redirect: {}", "redirect: must have a uri, prefixRewrite, authority, port or scheme"),
        ("redirect: {uri: /, redirectCode: 200}", "redirect.redirectCode: is 200; it must be 300 to 399"),
        ("redirect: {scheme: ftp}", "redirect.scheme: is ftp; it must be http or https"),
        ("redirect: {port: 70000}", "redirect.port: is 70000; it must be 65535 or less"),
        (
            "redirect: {prefixRewrite: /}, match: [{uri: {exact: /a}}]",
            "match[0].uri: must be a prefix, because redirect has a prefixRewrite",
        ),
        ("directResponse: {}", "directResponse.status: is missing"),
        ("directResponse: {status: 99}", "directResponse.status: is 99; it must be 200 or more"),
        (
            "directResponse: {status: 200, body: {bytes: '?'}}",
            "directResponse.body.bytes: is ?; it must be base64",
        ),
        (f"{TO}, match: [{{uri: {{}}}}]", "match[0].uri: must have one of exact, prefix, regex"),
        (
            f"{TO}, match: [{{method: {{prefix: ''}}}}]",
            "match[0].method.prefix: is empty; it must have at least one character",
        ),
        (
            f"{TO}, match: [{{uri: {{regex: '(?!a)'}}}}]",
            "match[0].uri.regex: is '(?!a)'; it must be a regular expression of RE2's syntax: look-ahead and "
            "look-behind are not part of RE2",
        ),
        (f"{TO}, match: [{{port: 0}}]", "match[0].port: is 0; it must be 1 or more"),
        (f"{TO}, match: [{{ignoreUriCase: 1}}]", "match[0].ignoreUriCase: is 1; it must be true or false"),
        (f"{TO}, match: {{uri: {{exact: /}}}}", "match: is a mapping; it must be a list"),
        (f"{TO}, match: [null]", "match[0]: is empty; it must be a mapping"),
        (f"{TO}, match: [{{headers: {{x: null}}}}]", "match[0].headers.x: is empty; it must be a mapping"),
        ("route: [{weight: 1}]", "route[0].destination: is missing"),
        (
            "route: [{destination: {host: '*'}}]",
            "route[0].destination.host: is *; it must not be * alone",
        ),
        (
            "route: [{destination: {host: a, subset: v_1}}]",
            "route[0].destination.subset: is v_1; it must be a DNS label: at most 63 letters, digits and -",
        ),
        (
            "route: [{destination: {host: a}}, {destination: {host: b}}]",
            "route: has weights whose sum is 0; it must be positive",
        ),
        ("route: [{destination: {host: a}, weight: -5}]", "route[0].weight: is -5; it must be 0 or more"),
        (
            "route: [{destination: {host: a}, weight: '5'}]",
            'route[0].weight: is "5"; it must be a whole number',
        ),
    ],
)
def test_a_rule_that_is_refused(text: str, said: str) -> None:
    assert rule(text) == [said]


def test_claims_of_tokens_are_refused_where_nobody_verifies_tokens() -> None:
    unread, misplaced = rule(f"{TO}, match: [{{headers: {{'@request.auth.claims.group': {{exact: a}}}}}}]")
    assert "no token is verified" in unread
    assert misplaced.endswith("matches a token's claim, which only rules bound to a gateway can")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("hosts: [a]", "spec: must have http, tls or tcp rules"),
        (
            f"hosts: ['*']\nhttp: [{{{TO}}}]",
            "spec.hosts[0]: is *, which only a rule bound to a gateway may say; name the hosts",
        ),
        (f"hosts: [a.b, '*.b']\nhttp: [{{{TO}}}]", "spec.hosts[1]: is *.b, which a.b means already"),
        (
            f"hosts: [a]\nexportTo: ['.', '*']\nhttp: [{{{TO}}}]",
            "spec.exportTo[1]: is *, which must stand alone",
        ),
        (f"gateways: [mesh]\nhttp: [{{{TO}}}]", "spec.gateways: must not be given where hosts is empty"),
        (f"hosts: [a]\ngateways: [a_b]\nhttp: [{{{TO}}}]", None),
        (
            "hosts: [a]\ntls: [{match: [{sniHosts: [b]}], route: [{destination: {host: a}}]}]",
            "spec.tls[0].match[0].sniHosts[0]: is b, which is in none of spec.hosts",
        ),
        ("hosts: [a]\ntcp: [{match: [{port: 1}]}]", "spec.tcp[0].route: must have at least one destination"),
    ],
)
def test_an_object_that_is_refused(text: str, said: str | None) -> None:
    found = whole(text)
    assert said in found if said else found
