"""Services and endpoints as objects declare them."""

from __future__ import annotations

import pytest

from retia.model.mesh import Protocol, Resolution, ServicePort, Wire, WorkloadPort
from retia.policy.registry import endpoints, resolve_address, resolve_name, service
from retia.policy.services import matching_port
from tests.support.world import World, fqdn

WEB = WorkloadPort(8080, 8080, Protocol.HTTP)
DB = WorkloadPort(5432, 5432, Protocol.TCP)


@pytest.mark.parametrize(
    ("wanted", "by_name", "found"),
    [
        (ServicePort(8080, Protocol.HTTP), True, WEB),
        (ServicePort(80, Protocol.HTTP, target_port=8080), False, WEB),
        (ServicePort(80, Protocol.HTTP), False, None),
        (ServicePort(80, Protocol.HTTP, target_name="web"), False, WEB),
        (ServicePort(80, Protocol.GRPC, target_name="web"), False, None),
    ],
)
def test_the_port_behind_a_services_port(
    wanted: ServicePort, by_name: bool, found: WorkloadPort | None
) -> None:
    assert matching_port((WEB, DB), wanted, by_name=by_name) is found


def entry(host: str, more: str) -> str:
    return f"""
kind: ServiceEntry
metadata: {{name: {host.removeprefix("*.")}}}
spec: {{hosts: ["{host}"], ports: [{{number: 80, name: http, protocol: HTTP}}], {more}}}
"""


def test_hosts_that_share_an_address_are_told_apart_by_their_ports() -> None:
    shared = "addresses: [240.9.9.9], resolution: STATIC"
    world = World().apply(entry("a.example", shared)).apply(entry("b.example", shared).replace("80", "81"))
    view = world.client("web").view

    assert view.index("vip", "240.9.9.9") == ("a.example", "b.example")
    first, second = resolve_address(view, "240.9.9.9", 80), resolve_address(view, "240.9.9.9", 81)
    assert first is not None
    assert second is not None
    assert (first.host, second.host) == ("a.example", "b.example")


def test_the_narrowest_network_that_holds_an_address_is_meant() -> None:
    world = World()
    world.apply(entry("wide.example", "addresses: [10.0.0.0/8], resolution: NONE"))
    world.apply(entry("narrow.example", "addresses: [10.1.0.0/16], resolution: NONE"))
    view = world.client("web").view

    narrow, wide = resolve_address(view, "10.1.2.3", 80), resolve_address(view, "10.2.2.3", 80)
    assert narrow is not None
    assert wide is not None
    assert (narrow.host, wide.host) == ("narrow.example", "wide.example")
    assert resolve_address(view, "11.0.0.1", 80) is None


def test_a_wildcard_has_an_address_unless_each_name_has_its_own() -> None:
    world = World()
    world.apply(entry("*.looked.example", "resolution: DYNAMIC_DNS"))
    world.apply(entry("*.dialled.example", "resolution: NONE"))
    view = world.client("web").view

    looked, dialled = service(view, "*.looked.example"), service(view, "*.dialled.example")
    assert looked is not None
    assert dialled is not None
    assert looked.resolution is Resolution.DYNAMIC
    assert looked.vip
    assert not dialled.vip


def test_an_endpoint_with_a_proxy_before_it_is_called_with_its_identity() -> None:
    labels = "labels: {security.istio.io/tlsMode: istio}"
    listed = f"resolution: STATIC, endpoints: [{{address: 192.0.2.1, serviceAccount: peer, {labels}}}]"
    view = World().apply(entry("peer.example", listed)).client("web").view

    (found,) = endpoints(view, "peer.example")
    assert found.wire is Wire.MTLS
    assert found.identity == "spiffe://cluster.local/ns/default/sa/peer"


def test_another_name_of_a_service_means_that_service() -> None:
    world = World().service("reviews")
    world.apply(f"""
kind: Service
metadata: {{name: alias}}
spec: {{type: ExternalName, externalName: {fqdn("reviews")}, ports: [{{name: http, port: 9080}}]}}
""")
    found = resolve_name(world.client("web").view, "alias", "default", 9080)

    assert found is not None
    assert found.host == fqdn("reviews")
