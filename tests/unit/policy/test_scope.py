"""What a proxy sees by its Sidecar."""

from __future__ import annotations

from retia.model.mesh import ProxyKind
from retia.policy.registry import resolve_address, resolve_name, service
from retia.policy.scope import allow_any, egress_proxy, is_seen, scope
from tests.support.world import World, fqdn

SIDECAR = """
kind: Sidecar
metadata: {name: default}
spec:
  egress: [{hosts: ["./*"]}]
  outboundTrafficPolicy: {mode: REGISTRY_ONLY, egressProxy: {host: exit, port: {number: 80}}}
"""


def world(*texts: str) -> World:
    made = World().service("reviews").service("far", namespace="other")
    for text in texts:
        made.apply(text)
    return made


def test_without_a_sidecar_everything_is_seen() -> None:
    view = world().client("web").view

    assert scope(view) is None
    assert allow_any(view)
    assert resolve_name(view, "far.other", "default", 9080) is not None


def test_a_hidden_service_has_neither_name_nor_address() -> None:
    view = world(SIDECAR).client("web").view
    far = service(view, fqdn("far", "other"))

    assert far is not None
    assert not is_seen(view, far)
    assert resolve_name(view, "far.other", "default", 9080) is None
    assert resolve_address(view, far.vip, 9080) is None
    assert resolve_name(view, "reviews", "default", 9080) is not None


def test_unknown_hosts_go_where_the_sidecar_says() -> None:
    view = world(SIDECAR).client("web").view

    assert not allow_any(view)
    assert egress_proxy(view) == (fqdn("exit"), 80, "")


def test_gateways_and_other_namespaces_have_no_part_in_it() -> None:
    made = world(SIDECAR)

    assert scope(made.client("web", kind=ProxyKind.GATEWAY).view) is None
    assert scope(made.client("web", namespace="other").view) is None
