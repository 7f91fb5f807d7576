"""Gateways of a mesh file: one line is enough, and what it becomes."""

from __future__ import annotations

from pathlib import Path

import pytest

from retia.cli.up import gateways, spec
from retia.cli.up.positions import ProblemsError
from retia.cli.up.spec import Spec


@pytest.fixture(params=[True, False], ids=["root", "ordinary"])
def privileged(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(gateways, "may_bind_low_ports", lambda: request.param)
    return bool(request.param)


def only(text: str, folder: Path) -> Spec:
    wanted = spec.resolve(text, "retia.yaml", folder, {})
    (found,) = wanted.specs.values()
    assert wanted.order == (found.slot.service,)
    assert wanted.care[found.slot.service].restart == "always"
    return found


@pytest.mark.parametrize(
    "text", ["gateways: [ingress]", "gateways: ingress", "gateways: {ingress: {}}", "gateways: {ingress: }"]
)
def test_one_line(text: str, tmp_path: Path, privileged: bool) -> None:
    found = only(text, tmp_path)
    assert found.gateway == "ingress"
    labels = dict(found.labels)
    assert labels["istio"] == "ingressgateway"
    assert labels["gateway.networking.k8s.io/gateway-name"] == "ingress"
    assert found.capture == "explicit"
    bound = [(port.number, port.app_port) for port in found.ports]
    assert bound == ([(80, 80), (443, 443)] if privileged else [(80, 8080), (443, 8443)])
    moved = dict(found.annotations).get("retia.dev/gateway-ports", "")
    assert moved == ("" if privileged else "80:8080,443:8443")


def test_everything_said(tmp_path: Path, privileged: bool) -> None:
    text = """
        gateways:
          egress:
            namespace: infra
            address: 127.0.0.1
            ports: {80: 9080, 31400: 31400}
            labels: {team: network}
            trusted_proxies: 1
            service_account: out
    """
    found = only(text, tmp_path)
    assert found.slot.namespace == "infra"
    assert found.service_account == "out"
    assert dict(found.labels)["istio"] == "egressgateway"
    assert dict(found.labels)["team"] == "network"
    said = dict(found.annotations)
    assert said["retia.dev/gateway-bind"] == "127.0.0.1"
    assert said["retia.dev/trusted-proxies"] == "1"
    assert said["retia.dev/gateway-ports"] == ("80:9080" if privileged else "80:9080,443:8443")
    assert [port.number for port in found.ports] == [80, 443, 31400]


def test_ports_as_a_list(tmp_path: Path, privileged: bool) -> None:
    found = only("gateways: {ingress: {ports: ['80:9080', 443, 31400]}}", tmp_path)
    assert [(port.number, port.app_port) for port in found.ports] == [(80, 9080), (443, 443), (31400, 31400)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("gateways: [Ingress]", "is no DNS label"),
        ("gateways: {ingress: {port: 80}}", "unknown field; did you mean 'ports'?"),
        ("gateways: {ingress: {ports: {80: 0}}}", "greater than or equal to 1"),
        ("gateways: {ingress: {ports: [x]}}", "is not PORT[:BOUND]"),
        ("gateways: [a]\nservices: {a: {command: sleep 1}}", "a is a service and a gateway"),
    ],
)
def test_what_is_wrong(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ProblemsError) as caught:
        spec.resolve(text, "retia.yaml", tmp_path, {})
    assert said in str(caught.value)
