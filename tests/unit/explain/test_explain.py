"""What is said of a call; the simulation cases ask the rest."""

from __future__ import annotations

import json

import pytest
from envoy.config.route.v3 import route_components_pb2

from retia.explain import Call, Path, Unknown, arriving, data, explain, from_bytes, http_call, lines, tcp_call
from retia.model.resource import Name, TypeUrl
from tests.support.world import Mesh, World

VIP = "240.240.0.3"
RULES = """
    kind: VirtualService
    metadata: {name: reviews}
    spec:
      hosts: [reviews]
      http:
      - match: [{headers: {end-user: {exact: jason}}}]
        route: [{destination: {host: reviews, subset: v2}}]
      - timeout: 2s
        route: [{destination: {host: reviews}}]
      - route: [{destination: {host: productpage}}]
    ---
    kind: DestinationRule
    metadata: {name: reviews}
    spec: {host: reviews, subsets: [{name: v2, labels: {version: v2}}]}
"""


def shop() -> World:
    world = World().service("reviews", versions=("v1", "v2")).service("productpage", 9090)
    return world.service("db", 5432, "tcp").apply(RULES)


def follow(mesh: Mesh, call: Call) -> Path:
    return explain(from_bytes(lambda name: mesh.get(name).message), call)


def get(path: str = "/", **headers: str) -> Call:
    return http_call("GET", f"http://reviews:9080{path}", address=VIP, headers=headers)


def test_a_path_says_which_rule_and_why_others_lost() -> None:
    path = follow(shop().client("productpage"), get())

    assert path.rule is not None
    assert (path.rule.object, path.rule.field) == ("VirtualService/default/reviews", "spec.http[1]")
    assert [(lost.field, lost.matches) for lost in path.rule.lost] == [
        ("spec.http[0]", False),
        ("spec.http[2]", True),
    ]
    assert "end-user is absent" in path.rule.lost[0].why
    assert path.timeout_s == 2
    assert sum(endpoint.share for endpoint in path.destinations[0].endpoints) == pytest.approx(1)
    assert not path.unknown


def test_the_callees_side_is_followed_too() -> None:
    world = shop()
    call = get()
    destination = follow(world.client("productpage"), call).destinations[0]
    caller = "spiffe://cluster.local/ns/default/sa/productpage"

    known = arriving(destination, call, destination.endpoints[0], identity=caller)
    stranger = arriving(destination, call, destination.endpoints[0], identity="spiffe://elsewhere/x")

    assert follow(world.client("reviews"), known).destinations[0].cluster == "inbound|9080||"
    assert "none of the names" in follow(world.client("reviews"), stranger).refused


def test_opaque_tcp_goes_by_the_address() -> None:
    world = shop()
    vip = world.snapshot().get(("service", "db.default.svc.cluster.local")).vip

    path = follow(world.client("productpage"), tcp_call(vip, 5432))

    assert [d.cluster for d in path.destinations] == [f"tcp|{vip}:5432"]


def test_a_proxy_without_the_listener_says_so() -> None:
    assert "no listener" in explain(lambda _: None, get()).refused


def test_what_cannot_be_interpreted_is_said() -> None:
    mesh = shop().client("productpage")

    def lookup(name: Name) -> object:
        found = from_bytes(lambda n: mesh.get(n).message)(name)
        if name.type is TypeUrl.VIRTUAL_HOST:
            odd = route_components_pb2.Route(name="odd")
            odd.match.prefix = "/"
            odd.match.dynamic_metadata.add()
            rest = list(found.routes)
            del found.routes[:]
            found.routes.extend([odd, *rest])
        return found

    path = explain(lookup, get())

    assert [u.where for u in path.unknown] == ["route 0 odd"]
    assert any("not interpreted" in line for line in lines(path))


def test_a_path_is_plain_data_and_lines() -> None:
    path = follow(shop().client("productpage"), get(end_user="x"))

    found = data(path)

    assert json.loads(json.dumps(found)) == found
    assert [step["kind"] for step in found["steps"]] == ["listener", "chain", "virtual-host", "rule"]
    assert any(line.startswith("route 1 ") for line in lines(path))


def test_unknown_is_a_step() -> None:
    assert Path((Unknown("here", "this"),)).unknown == (Unknown("here", "this"),)
