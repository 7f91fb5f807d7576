from __future__ import annotations

from typing import Any

import pytest

from retia._generated import agent_pb2 as pb
from retia.control.convert import BadReport, proxy_of, workload_of
from retia.model.ids import HostId
from retia.model.mesh import Protocol, ProxyKind

HOST = HostId("one")


def message(**more: Any) -> Any:
    made = pb.Workload(id="default/a-0", namespace="default", service_account="a", service="a", healthy=True)
    made.ports.add(number=80, protocol="http", listening=True)
    made.MergeFrom(pb.Workload(**more))
    return made


def test_a_workload_is_taken_as_reported() -> None:
    workload = workload_of(message(published_address="127.64.0.1"), HOST)
    assert (workload.id, workload.host, workload.published_address) == ("default/a-0", HOST, "127.64.0.1")
    assert workload.ports[0].app_port == 80


def test_a_protocol_of_a_newer_agent_is_bytes() -> None:
    made = message()
    made.ports.add(number=81, protocol="quic")
    assert workload_of(made, HOST).ports[1].protocol is Protocol.TCP


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"namespace": "Bad_"}, "namespace 'Bad_'"),
        ({"id": "other/a-0"}, "the id must be <namespace>/<name>"),
        ({"published_address": "nowhere"}, "'nowhere' is no IP address"),
        ({"service_account": "A"}, "service account 'A'"),
        ({"ports": [{"number": 70000}]}, "port 70000"),
    ],
)
def test_what_cannot_be_is_refused(wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BadReport, match=sentence):
        workload_of(message(**wrong), HOST)


def test_a_sidecar_is_made_of_its_workload() -> None:
    workload = workload_of(message(published_address="127.64.0.1", app_address="127.65.0.1"), HOST)
    host = pb.Hello(host="one", advertise_address="10.0.0.1", gateway_port=15443)
    proxy = proxy_of(pb.Proxy(id="default/a-0", workload="default/a-0"), workload, host, "cluster.local")
    assert proxy.identity == "spiffe://cluster.local/ns/default/sa/a"
    assert (proxy.inbound_address, proxy.inbound_port) == ("127.64.0.1", 15006)


def test_a_host_has_one_gateway_of_its_own_name() -> None:
    host = pb.Hello(host="one", advertise_address="10.0.0.1", gateway_port=15443)
    gateway = proxy_of(pb.Proxy(id="host/one", kind="host-gateway"), None, host, "cluster.local")
    assert gateway.kind is ProxyKind.HOST_GATEWAY
    assert (gateway.inbound_address, gateway.inbound_port) == ("10.0.0.1", 15443)
    with pytest.raises(BadReport, match="a host's gateway is host/one"):
        proxy_of(pb.Proxy(id="host/two", kind="host-gateway"), None, host, "cluster.local")


def test_a_sidecar_without_a_workload_is_refused() -> None:
    with pytest.raises(BadReport, match="is not registered on this host"):
        proxy_of(pb.Proxy(id="default/a-0", workload="default/a-0"), None, pb.Hello(host="one"), "x")


def gateway(**annotations: str) -> Any:
    said = {
        "retia.dev/gateway": "ingress",
        **{f"retia.dev/{k.replace('_', '-')}": v for k, v in annotations.items()},
    }
    workload = workload_of(message(published_address="127.64.0.1", annotations=said), HOST)
    proxy = pb.Proxy(id="default/a-0", kind="gateway", workload="default/a-0", outbound_address="127.64.0.1")
    return proxy_of(proxy, workload, pb.Hello(host="one"), "cluster.local")


def test_a_gateways_annotations_say_where_it_listens() -> None:
    proxy = gateway(gateway_bind="192.0.2.1", gateway_ports="443:8443,80:8080")
    assert proxy.kind is ProxyKind.GATEWAY
    assert proxy.edge_address == "192.0.2.1"
    assert proxy.edge_ports == ((80, 8080), (443, 8443))
    assert (proxy.inbound_address, proxy.ports) == ("", ()), "it has no application"


@pytest.mark.parametrize("text", ["80", "80:", "a:b", "0:1", "80:70000", "80:8080;"])
def test_a_gateway_with_impossible_ports_is_refused(text: str) -> None:
    with pytest.raises(BadReport, match="it must be PORT:BOUND"):
        gateway(gateway_ports=text)
