"""What must hold for every world: order doesn't matter, references resolve, Envoy accepts it all."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from retia.translate.consistency import problems
from tests.support.validating import complaints
from tests.support.world import World

SERVICES = ("reviews", "ratings", "details")
REQUESTS = tuple(f"9080/{name}" for name in (*SERVICES, "nowhere", "reviews.default", "127.64.0.1:9080"))

names = st.sampled_from(SERVICES)
subsets = st.sampled_from(("", "v1", "v2", "v9"))
texts = st.sampled_from(("{exact: /a}", "{prefix: /b}", '{regex: "/c.*"}'))


@st.composite
def destinations(draw: st.DrawFn) -> str:
    host, subset = draw(st.sampled_from((*SERVICES, "gone"))), draw(subsets)
    return f"{{host: {host}, subset: {subset}}}" if subset else f"{{host: {host}}}"


@st.composite
def rules(draw: st.DrawFn) -> str:
    parts = []
    if draw(st.booleans()):
        parts.append(f"match: [{{uri: {draw(texts)}}}, {{headers: {{x: {draw(texts)}}}}}]")
    action = draw(st.sampled_from(("route", "split", "redirect", "answer")))
    if action == "route":
        parts.append(f"route: [{{destination: {draw(destinations())}}}]")
    elif action == "split":
        one, two = draw(destinations()), draw(destinations())
        parts.append(f"route: [{{destination: {one}, weight: 3}}, {{destination: {two}, weight: 1}}]")
    elif action == "redirect":
        parts.append("redirect: {uri: /elsewhere, redirectCode: 307}")
    else:
        parts.append("directResponse: {status: 204}")
    if action in ("route", "split"):
        extras = (
            "timeout: 1s",
            "retries: {attempts: 1, retryOn: 5xx}",
            "fault: {abort: {httpStatus: 500, percentage: {value: 5}}}",
            "headers: {request: {set: {x-a: b}}}",
            "rewrite: {uri: /z}",
            f"mirror: {draw(destinations())}",
        )
        parts += draw(st.lists(st.sampled_from(extras), unique=True, max_size=3))
    return "{" + ", ".join(parts) + "}"


@st.composite
def objects(draw: st.DrawFn) -> str:
    kind = draw(st.sampled_from(("VirtualService", "DestinationRule", "PeerAuthentication")))
    if kind == "VirtualService":
        http = ", ".join(draw(st.lists(rules(), min_size=1, max_size=3)))
        spec = f"{{hosts: [{draw(names)}], http: [{http}]}}"
    elif kind == "DestinationRule":
        policies = (
            "{loadBalancer: {simple: RANDOM}}",
            "{loadBalancer: {consistentHash: {httpHeaderName: x}}}",
            "{outlierDetection: {consecutive5xxErrors: 1}}",
            "{tls: {mode: DISABLE}}",
            "{connectionPool: {http: {h2UpgradePolicy: UPGRADE}}}",
        )
        policy = draw(st.sampled_from(policies))
        versions = "[{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]"
        spec = f"{{host: {draw(names)}, trafficPolicy: {policy}, subsets: {versions}}}"
    else:
        mode = draw(st.sampled_from(("STRICT", "PERMISSIVE", "DISABLE", "UNSET")))
        spec = f"{{mtls: {{mode: {mode}}}}}"
    return f"kind: {kind}\nmetadata: {{name: NAME}}\nspec: {spec}\n"


@st.composite
def worlds(draw: st.DrawFn) -> World:
    world = World(outbound_allow_any=draw(st.booleans()))
    for name in SERVICES:
        world.service(
            name,
            protocol=draw(st.sampled_from(("http", "grpc", "auto", "tcp"))),
            versions=draw(st.sampled_from((("v1",), ("v1", "v2")))),
            http_inbound=draw(st.booleans()),
            host=draw(st.sampled_from(("here", "there"))),
            gateway=draw(st.sampled_from(("", "192.0.2.1:15443"))),
        )
    for number, text in enumerate(draw(st.lists(objects(), max_size=5))):
        world.apply(text.replace("NAME", f"object-{number}"))
    return world


def told(world: World) -> list[Any]:
    return world.client("reviews").reachable(*REQUESTS)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(worlds(), st.randoms(use_true_random=False))
def test_the_order_of_arrival_does_not_matter(world: World, shuffle: random.Random) -> None:
    """Objects keep their order of creation, which is a fact about them, however they arrive."""
    expected = told(world)
    arrived = world.objects()
    shuffle.shuffle(arrived)
    shuffle.shuffle(world.workloads)
    world.objects = lambda: arrived  # type: ignore[method-assign]
    client = next(w for w in world.workloads if w.id == "default/reviews-v1-1")
    world.workloads.remove(client)
    world.workloads.insert(0, client)

    assert told(world) == expected


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(worlds())
def test_every_reference_resolves(world: World) -> None:
    mesh = world.client("reviews")

    assert not problems(mesh.get, mesh.roots(*REQUESTS))


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(world=worlds())
def test_envoy_accepts_what_is_generated(world: World, tmp_path: Path) -> None:
    assert not complaints(told(world), tmp_path)


@pytest.mark.long
@pytest.mark.timeout(900)  # each example starts an Envoy: a quarter of a second, several on a busy machine
@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(world=worlds())
def test_envoy_accepts_what_is_generated_at_length(world: World, tmp_path: Path) -> None:
    assert not complaints(told(world), tmp_path)


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=40), st.sampled_from(("9080", "explicit", "upstream-1", "x")))
def test_any_host_header_gets_an_answer(host: str, route_config: str) -> None:
    from retia.model.resource import TypeUrl

    name = f"{route_config}/{host.replace('/', '')}"

    built = World().service("reviews").client(explicit_port=1).built(TypeUrl.VIRTUAL_HOST, name)

    assert name in built.aliases
