"""Kubernetes Service, and what its ports speak."""

from __future__ import annotations

import pytest

from retia.config.schema import protocol
from retia.model.mesh import Protocol
from tests.support.documents import findings_of, spec_of


@pytest.mark.parametrize(
    ("number", "name", "app_protocol", "speaks"),
    [
        (80, "", None, Protocol.AUTO),
        (80, "http", None, Protocol.HTTP),
        (80, "HTTP-web", None, Protocol.HTTP),
        (80, "httpx", None, Protocol.AUTO),
        (80, "http2-x", None, Protocol.HTTP2),
        (80, "grpc-web-x", None, Protocol.GRPC),
        (80, "grpc", None, Protocol.GRPC),
        (80, "https", None, Protocol.TLS),
        (80, "tcp-x", None, Protocol.TCP),
        (6379, "redis", None, Protocol.TCP),
        (3306, "db", None, Protocol.TCP),
        (3306, "http-db", None, Protocol.HTTP),
        (80, "http", "tcp", Protocol.TCP),
        (80, "http", "custom", Protocol.AUTO),
        (80, "", "kubernetes.io/h2c", Protocol.HTTP2),
        (80, "", "kubernetes.io/ws", Protocol.HTTP),
        (80, "", "kubernetes.io/wss", Protocol.TLS),
    ],
)
def test_what_a_port_speaks(number: int, name: str, app_protocol: str | None, speaks: Protocol) -> None:
    assert protocol.of_service_port(number, name, "TCP", app_protocol) is speaks


def test_udp_is_not_carried() -> None:
    assert protocol.of_service_port(53, "dns", "UDP", None) is None
    assert findings_of("Service", "ports: [{port: 53, protocol: UDP}]") == [
        "spec.ports[0].protocol: is UDP, which has no effect; only TCP is carried; the port is left out"
    ]


def test_a_service() -> None:
    spec = spec_of(
        "Service",
        """
        selector: {app: reviews}
        clusterIP: None
        type: ClusterIP
        ports: [{port: 80, name: http, targetPort: 8080, appProtocol: http}, {port: 81, name: raw}]
        """,
    )
    assert spec.is_headless
    assert [(port.port, port.app_port, port.speaks) for port in spec.ports] == [
        (80, 8080, Protocol.HTTP),
        (81, 81, Protocol.AUTO),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("selector: {a: b}", "spec.ports: must have at least one port"),
        (
            "ports: [{port: 80}, {port: 81, name: x}]",
            "spec.ports[0].name: is missing; several ports need names",
        ),
        (
            "ports: [{port: 80, name: a}, {port: 80, name: b}]",
            "spec.ports[1].port: is 80/TCP, which is there already",
        ),
        (
            "ports: [{port: 80, name: Web}]",
            "spec.ports[0].name: is 'Web'; it must be a DNS label in lower case",
        ),
        ("ports: [{port: 80}]\nclusterIP: x", "spec.clusterIP: is 'x'; it must be an IP address or None"),
        (
            "ports: [{port: 80}]\nexternalIPs: [10.0.0.1]",
            "spec.externalIPs: has no effect; it is for Kubernetes",
        ),
    ],
)
def test_what_is_said_about_a_service(text: str, said: str) -> None:
    assert said in findings_of("Service", text)


def test_the_cluster_sets_these_by_itself() -> None:
    server_side = """
    clusterIP: 10.0.0.1
    clusterIPs: [10.0.0.1]
    internalTrafficPolicy: Cluster
    ipFamilies: [IPv4]
    ipFamilyPolicy: SingleStack
    sessionAffinity: None
    ports: [{port: 80, protocol: TCP, targetPort: 80}]
    """
    said = findings_of("Service", server_side)
    assert all("internalTrafficPolicy" in each for each in said)
