"""Clients that dial an endpoint's address: what it means where several hosts use the same one."""

from __future__ import annotations

from dataclasses import replace

from retia.policy.registry import resolve_address
from retia.policy.traffic import pinned_endpoint
from tests.support.world import World

ADDRESS = "127.64.0.1"


def two_hosts(first: str, second: str) -> World:
    """A service on host ``one``, another (or the same) on host ``two``, both at the first address of their
    host."""
    world = World().service(first, host="one", gateway="10.0.0.1:15443")
    world.service(second, host="two", gateway="10.0.0.2:15443", versions=("v2",))
    world.workloads = [replace(w, published_address=ADDRESS) for w in world.workloads]
    return world


def test_an_address_means_the_instance_of_the_callers_own_host() -> None:
    world = two_hosts("left", "right")
    for host, service in (("one", "left"), ("two", "right")):
        found = resolve_address(world.client(host=host).view, ADDRESS, 9080)
        assert found is not None
        assert found.host == f"{service}.default.svc.cluster.local"
        assert found.rivals == ()


def test_an_address_of_another_host_still_means_its_service() -> None:
    found = resolve_address(World().service("left", host="one").client(host="three").view, ADDRESS, 9080)
    assert found is not None
    assert found.host == "left.default.svc.cluster.local"


def test_of_one_services_instances_that_of_the_own_host_is_dialled() -> None:
    world = two_hosts("both", "both")
    key = ("both.default.svc.cluster.local", 9080, f"{ADDRESS}:9080")
    for host in ("one", "two"):
        endpoint = pinned_endpoint(world.client(host=host).view, key)
        assert endpoint is not None
        assert endpoint.host == host
