"""What RateLimitPolicy becomes in listeners and virtual hosts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from envoy.extensions.filters.http.local_ratelimit.v3 import local_rate_limit_pb2
from envoy.extensions.filters.http.ratelimit.v3 import rate_limit_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2

from retia.model.resource import TypeUrl
from retia.policy.ratelimit import Condition, Key, KeyKind, Test, TestKind
from retia.translate import expressions
from retia.translate.rate_limits import GLOBAL, LOCAL
from tests.support.validating import complaints
from tests.support.world import Mesh, World, outbound

COUNTER = outbound("ratelimit", 8081, namespace="retia-system")


def policy(limits: str, target: str = "{kind: Service, name: reviews}", more: str = "") -> str:
    return f"""
kind: RateLimitPolicy
metadata: {{name: it}}
spec:
  targetRefs: [{target}]
  limits: {limits}
  {more}
"""


def world(*texts: str) -> World:
    made = World().service("reviews").service("ratelimit", 8081, "grpc", namespace="retia-system")
    for text in texts:
        made.apply(text)
    return made


def filters(mesh: Mesh, chain: str = "mtls-9080") -> dict[str, Any]:
    """The HTTP filters of a chain by name; empty: it passes bytes."""
    listener = mesh.listener("inbound")
    (found,) = [c for c in listener.filter_chains if c.name == chain]
    for each in found.filters:
        if each.name.endswith("http_connection_manager"):
            manager = http_connection_manager_pb2.HttpConnectionManager.FromString(each.typed_config.value)
            return {f.name: f.typed_config for f in manager.http_filters}
    return {}


def local(config: Any) -> Any:
    return local_rate_limit_pb2.LocalRateLimit.FromString(config.value)


def test_without_a_policy_nothing_is_parsed() -> None:
    assert filters(world().client("reviews")) == {}


def test_a_limit_for_all_is_the_bucket_of_all() -> None:
    mesh = world(policy("[{name: all, requests: 100, per: Minute, burst: 10}]")).client("reviews")
    config = local(filters(mesh)[LOCAL])
    assert (config.token_bucket.max_tokens, config.token_bucket.tokens_per_fill.value) == (10, 100)
    assert config.token_bucket.fill_interval.seconds == 60
    assert config.always_consume_default_token_bucket.value
    assert not config.descriptors


def test_every_chain_of_the_port_has_it() -> None:
    mesh = world(policy("[{name: all, requests: 100}]")).client("reviews")
    for chain in ("mtls-9080", "mtls-h2-9080", "plain-9080"):
        assert LOCAL in filters(mesh, chain)


def test_a_conditional_limit_has_a_bucket_of_its_own() -> None:
    limits = "[{name: get, requests: 5, when: [{method: GET}], by: [{type: Header, name: X-User}]}]"
    config = local(filters(world(policy(limits)).client("reviews"))[LOCAL])
    (descriptor,) = config.descriptors
    assert [(e.key, e.value) for e in descriptor.entries] == [("default/it/get", "on"), ("header:x-user", "")]
    assert not config.always_consume_default_token_bucket.value
    assert config.token_bucket.max_tokens == 2**32 - 1


def test_global_limits_ask_the_counting_service() -> None:
    limits = "[{name: all, scope: Global, requests: 5, unit: 10s}]"
    mesh = world(policy(limits, more="onUnavailable: Deny")).client("reviews")
    config = rate_limit_pb2.RateLimit.FromString(filters(mesh)[GLOBAL + ".deny"].value)
    assert config.rate_limit_service.grpc_service.envoy_grpc.cluster_name == COUNTER
    assert config.failure_mode_deny
    (limit,) = config.rate_limits
    assert limit.actions[0].generic_key.descriptor_value == "default/it/all|5/10"
    assert COUNTER in [name.name for name in mesh.built(TypeUrl.LISTENER, "inbound").refs]


def test_the_counting_service_does_not_ask_itself() -> None:
    text = "kind: RateLimitPolicy\nmetadata: {name: it, namespace: retia-system}\n"
    text += "spec: {limits: [{name: all, scope: Global, requests: 5}]}"
    mesh = world(text)
    assert filters(mesh.client("reviews"))
    assert not filters(mesh.client("ratelimit", "retia-system"), "mtls-8081")


def test_the_counting_service_need_not_be_there_yet() -> None:
    made = World().service("reviews").apply(policy("[{name: all, scope: Global, requests: 5}]"))
    mesh = made.client("reviews")
    assert COUNTER in [name.name for name in mesh.built(TypeUrl.LISTENER, "inbound").refs]
    assert not mesh.exists(TypeUrl.CLUSTER, COUNTER)


def test_a_policy_says_where_it_comes_from() -> None:
    mesh = world(policy("[{name: all, requests: 5}]")).client("reviews")
    built = mesh.built(TypeUrl.LISTENER, "inbound")
    assert [(str(p.ref), p.field) for p in built.provenance] == [
        ("RateLimitPolicy/default/it", "spec.limits[0]")
    ]
    assert not built.security


def test_envoy_takes_all_of_it(tmp_path: Path) -> None:
    when = """[{path: {type: RegularExpression, value: "/'[0-9]+\\\\\\\\d"}, source: {namespaces: [a]},
      headers: [{name: x, value: "it's"}], remoteAddresses: [10.128.0.0/9, 1.2.3.4]}]"""
    limits = f"""
    - {{name: a, requests: 5, when: {when}, by: [{{type: RemoteAddress}}, {{type: SourceIdentity}}]}}
    - {{name: b, scope: Global, requests: 5, per: Day, by: [{{type: Path}}]}}
    - {{name: c, requests: 5, shadow: true}}
    - {{name: d, connections: 5}}
    - {{name: e, concurrentConnections: 5}}
    - {{name: f, bytes: 4096}}"""
    assert complaints(world(policy(limits)).client("reviews").reachable(), tmp_path) == ""


@pytest.mark.parametrize(
    ("text", "quoted"),
    [("a", "'a'"), ("it's", "'it\\'s'"), ("a\\d", "'a\\\\d'"), ("é", "'é'"), ("\n", "'\\U0000000a'")],
)
def test_texts_are_quoted(text: str, quoted: str) -> None:
    assert expressions.quoted(text) == quoted


@pytest.mark.parametrize(
    ("network", "inside", "outside"),
    [
        ("10.0.0.0/8", ["10.1.2.3:99", "10.255.0.1:1"], ["110.1.2.3:9", "11.0.0.1:1"]),
        ("10.128.0.0/9", ["10.128.0.1:1", "10.255.0.1:1"], ["10.127.0.1:1", "10.12.0.1:1"]),
        ("192.0.2.7", ["192.0.2.7:80"], ["192.0.2.70:80", "192.0.2.8:80", "192x0.2.7:80"]),
        ("0.0.0.0/0", ["1.2.3.4:5"], []),
    ],
)
def test_networks_are_patterns(network: str, inside: list[str], outside: list[str]) -> None:
    pattern = re.compile(expressions.network(network))
    assert all(pattern.search(each) for each in inside)
    assert not any(pattern.search(each) for each in outside)


def test_conditions_read_as_they_are_written() -> None:
    present = Test(TestKind.PRESENT)
    condition = Condition("GET", Test(TestKind.SEGMENTS, "/a/"), (("x", present),))
    assert expressions.anyone_of([condition]) == (
        "(request.method == 'GET' && (request.url_path == '/a' || request.url_path.startsWith('/a/')) "
        "&& 'x' in request.headers)"
    )
    assert expressions.anyone_of([condition, Condition(path=Test(TestKind.SEGMENTS, "/"))]) == "true"
    assert expressions.anyone_of([]) == "true"


def test_who_calls_may_be_known_beforehand() -> None:
    key = Key(KeyKind.IDENTITY)
    assert expressions.key_value(key, "spiffe://t/ns/a/sa/b") == "'spiffe://t/ns/a/sa/b'"
    assert "uri_san_peer_certificate" in expressions.key_value(key)
