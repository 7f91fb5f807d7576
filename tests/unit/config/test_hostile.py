"""Absurd VirtualServices: a finding and never a crash or a stall; what stands beside them is read."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from retia.analysis.analyze import analyze
from retia.model.finding import Level
from retia.model.resource import TypeUrl
from retia.translate import routes
from tests.support.documents import parse_text
from tests.support.world import World, fqdn

LIMIT_S = 8.0
"""Generous: the machine may be busy. What is guarded against takes minutes or memory without end."""
GOOD = """
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: good}
spec: {hosts: [good], http: [{route: [{destination: {host: good}}]}]}
"""
ROUTE = [{"destination": {"host": "a"}}]


def document(spec: dict[str, Any], name: str = "bad") -> str:
    head = {"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": {"name": name}}
    return yaml.dump({**head, "spec": spec}, Dumper=yaml.CSafeDumper)


def many_routes() -> dict[str, Any]:
    return {"hosts": ["a"], "http": [{"match": [{"uri": {"exact": f"/{n}"}}]} for n in range(8_000)]}


def many_matches() -> dict[str, Any]:
    match = [{"uri": {"exact": f"/{n}"}} for n in range(6_000)]
    return {"hosts": ["a"], "http": [{"match": match, "route": ROUTE}]}


def long_header() -> dict[str, Any]:
    match = [{"headers": {"x": {"exact": "a" * 2**20}}}]
    return {"hosts": ["a"], "http": [{"match": match, "route": ROUTE}]}


def long_expression() -> dict[str, Any]:
    return {"hosts": ["a"], "http": [{"match": [{"uri": {"regex": "a" * 2**20}}], "route": ROUTE}]}


def large_expression() -> dict[str, Any]:
    pattern = "(" + "[acegikmoqsuwy]" * 40 + "){1000}"
    return {"hosts": ["a"], "http": [{"match": [{"uri": {"regex": pattern}}], "route": ROUTE}]}


def nested_expression() -> dict[str, Any]:
    pattern = "(" * 500 + "a" + "){2}" * 100 + ")" * 400
    return {"hosts": ["a"], "http": [{"match": [{"uri": {"regex": pattern}}], "route": ROUTE}]}


def heavy_weight() -> dict[str, Any]:
    return {"hosts": ["a"], "http": [{"route": [{**ROUTE[0], "weight": 2**31}]}]}


def heavy_weights() -> dict[str, Any]:
    return {"hosts": ["a"], "http": [{"route": [{**ROUTE[0], "weight": 2**31 - 1}] * 3}]}


def heavy_connections() -> dict[str, Any]:
    return {"hosts": ["a"], "tcp": [{"route": [{**ROUTE[0], "weight": 2**31 - 1}] * 3}]}


def many_hosts() -> dict[str, Any]:
    return {"hosts": [f"h{n}.example" for n in range(3_000)], "http": [{"route": ROUTE}]}


def many_server_names() -> dict[str, Any]:
    names = [f"h{n}.example.com" for n in range(6_000)]
    return {"hosts": ["*.example.com"], "tls": [{"match": [{"sniHosts": names}], "route": ROUTE}]}


@pytest.mark.parametrize(
    "spec",
    [
        many_routes,
        many_matches,
        long_header,
        long_expression,
        large_expression,
        nested_expression,
        heavy_weight,
        heavy_weights,
        heavy_connections,
        many_hosts,
        many_server_names,
    ],
)
def test_an_absurd_object_is_refused_and_its_neighbour_read(spec: Callable[[], dict[str, Any]]) -> None:
    text = document(spec()) + GOOD
    start = time.process_time()
    parsed = parse_text(text)
    assert time.process_time() - start < LIMIT_S
    assert [str(obj.ref) for obj in parsed.objects] == ["VirtualService/default/good"]
    errors = [each for each in parsed.findings if each.level is Level.ERROR]
    assert errors
    assert all(len(str(each)) < 4000 for each in errors), "a finding is to be read by people"


def test_as_many_rules_as_are_allowed_are_judged_in_time() -> None:
    rules = [{"match": [{"uri": {"prefix": f"/{n}/"}}], "route": ROUTE} for n in range(5000)]
    objects = parse_text(document({"hosts": ["a"], "http": rules}) + GOOD).objects
    assert len(objects) == 2
    start = time.process_time()
    analyze(objects, [])
    assert time.process_time() - start < LIMIT_S


def test_delegates_that_go_round_in_circles_end() -> None:
    world = World().service("a").service("b")
    for name, other in (("one", "two"), ("two", "one")):
        world.apply(f"""
            kind: VirtualService
            metadata: {{name: {name}}}
            spec: {{hosts: [a], http: [{{delegate: {{name: {other}}}}}]}}
        """)
    mesh = world.client("b")
    built = mesh.virtual_host(f"9080/{fqdn('a')}:9080")
    assert [route.name for route in built.routes] == ["default"]


def test_rules_that_no_response_could_carry_cost_their_host_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "MAX_VIRTUAL_HOST_BYTES", 20_000)
    body = "x" * 5_000
    rules = ", ".join(
        f"{{match: [{{uri: {{exact: /{n}}}}}], directResponse: {{status: 200, body: {{string: {body}}}}}}}"
        for n in range(6)
    )
    world = World().service("a").service("b").service("web")
    world.apply(f"kind: VirtualService\nmetadata: {{name: big}}\nspec: {{hosts: [a], http: [{rules}]}}")
    mesh = world.client("web")
    built = mesh.built(TypeUrl.VIRTUAL_HOST, "9080/a:9080")
    assert len(built.message or b"") < 2000
    assert [(each.code, str(each.ref)) for each in built.findings] == [
        ("RT0003", "VirtualService/default/big")
    ]
    assert [r.direct_response.status for r in mesh.virtual_host("9080/a:9080").routes] == [500]
    assert mesh.virtual_host("9080/b:9080").routes[0].route.cluster == f"outbound|9080||{fqdn('b')}"
