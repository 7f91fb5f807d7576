"""How users may spell a kind."""

from __future__ import annotations

import pytest

from retia.control.rendering import kind_of
from retia.policy.gateway_api.names import GATEWAY


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("HTTPRoute", "HTTPRoute"),
        ("httproutes", "HTTPRoute"),
        ("httproutes.gateway.networking.k8s.io", "HTTPRoute"),
        ("gatewayclasses", "GatewayClass"),
        ("gc", "GatewayClass"),
        ("backendtlspolicies", "BackendTLSPolicy"),
        ("gateway", "Gateway"),
        ("gateways.networking.istio.io", "Gateway"),
        ("gtw", GATEWAY),
        ("gateways.gateway.networking.k8s.io", GATEWAY),
        ("Gateway.gateway.networking.k8s.io", GATEWAY),
        ("virtualservices.networking.istio.io", "VirtualService"),
        ("virtualservices.example.com", None),
        ("nothing", None),
    ],
)
def test_a_kind(text: str, kind: str | None) -> None:
    assert kind_of(text) == kind
