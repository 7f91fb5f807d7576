"""What differs between two snapshots, for each proxy and the names that it has."""

from __future__ import annotations

from dataclasses import replace

from retia.api import schema
from retia.control.preview import _compare, _Held
from retia.model.ids import ProxyId
from retia.model.resource import Name, TypeUrl
from tests.support.world import Mesh, World, fqdn, outbound

SUBSETS = """
    kind: DestinationRule
    metadata: {name: reviews}
    spec: {host: reviews, subsets: [{name: v1, labels: {version: v1}}]}
"""
ROUTES = """
    kind: VirtualService
    metadata: {name: reviews}
    spec: {hosts: [reviews], http: [{route: [{destination: {host: reviews, subset: v1}}]}]}
"""
HOST = Name(TypeUrl.VIRTUAL_HOST, f"9080/{fqdn('reviews')}:9080")


def mesh(*texts: str) -> Mesh:
    world = World().service("reviews").apply(SUBSETS)
    for text in texts:
        world.apply(text)
    return world.client()


def compared(*held: tuple[str, tuple[Name, ...]], full: bool = False) -> tuple[list[schema.ProxyDiff], int]:
    before, after = mesh(), mesh(ROUTES)
    proxies = [_Held(replace(before.proxy, id=ProxyId(name)), names) for name, names in held]
    return _compare(before.snapshot, after.snapshot, proxies, full)


def actions(group: schema.ProxyDiff) -> list[tuple[str, str]]:
    return [(each.action, each.resource) for each in group.resources]


def test_a_proxy_that_has_the_host_gets_its_new_clusters_too() -> None:
    (group,), unchanged = compared(("a", (HOST,)), ("b", ()))
    name = outbound("reviews", subset="v1")
    assert (group.proxies, unchanged) == (["a"], 1)
    assert actions(group) == [
        ("added", f"CDS {name}"),
        ("added", f"EDS {name}"),
        ("changed", str(HOST)),
    ]
    assert group.resources[-1].objects == ["VirtualService/default/reviews"]


def test_proxies_with_the_same_changes_stand_together() -> None:
    (group,), _ = compared(("b", (HOST,)), ("a", (HOST,)))
    assert group.proxies == ["a", "b"]


def test_the_text_of_a_difference() -> None:
    (group,), _ = compared(("a", (HOST,)), full=True)
    text = group.resources[-1].text
    assert '-        "cluster": "outbound|9080||reviews' in text
    assert '+        "cluster": "outbound|9080|v1|reviews' in text
