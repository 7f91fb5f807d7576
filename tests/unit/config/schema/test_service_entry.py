"""ServiceEntry and WorkloadEntry: Istio's rules."""

# ruff: noqa: E501 - messages stand whole, so that they can be searched for

from __future__ import annotations

import pytest

from retia.model.mesh import Protocol
from tests.support.documents import findings_of, spec_of

HTTP = "ports: [{number: 80, name: http, protocol: HTTP}]"


def entry(text: str) -> list[str]:
    return findings_of("ServiceEntry", text)


def test_a_service_with_endpoints() -> None:
    spec = spec_of(
        "ServiceEntry",
        """
        hosts: [db.example.com]
        addresses: [240.0.0.1]
        ports: [{number: 5432, name: pg, protocol: TCP, targetPort: 6432}]
        location: MESH_INTERNAL
        resolution: STATIC
        endpoints:
        - {address: 10.0.0.1, ports: {pg: 7432}, labels: {zone: a}, weight: 3}
        """,
    )
    assert spec.ports[0].speaks is Protocol.TCP
    assert dict(spec.endpoints[0].ports) == {"pg": 7432}
    assert hash(spec)


def test_what_endpoints_cannot_say_yet() -> None:
    endpoint = "{address: unix:///run/x, network: n, serviceAccount: s, locality: r/z}"
    ports = "ports: [{number: 80, name: http}]"
    said = entry(f"hosts: [a.b]\nresolution: STATIC\n{ports}\nsubjectAltNames: [x]\nendpoints: [{endpoint}]")
    assert said == [
        "spec.endpoints[0].network: is not supported by this version; every endpoint is dialled directly"
    ]


@pytest.mark.parametrize(
    ("protocol", "speaks"),
    [
        ("HTTP", Protocol.HTTP),
        ("http2", Protocol.HTTP2),
        ("GRPC-Web", Protocol.GRPC),
        ("HTTPS", Protocol.TLS),
        ("MONGO", Protocol.TCP),
        ("", Protocol.AUTO),
        ("UDP", None),
    ],
)
def test_what_a_port_speaks(protocol: str, speaks: Protocol | None) -> None:
    spec = spec_of("ServiceEntry", f"hosts: [a.b]\nports: [{{number: 1, name: p, protocol: '{protocol}'}}]")
    assert spec.ports[0].speaks is speaks


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ports: []", "spec.hosts: is missing"),
        ("hosts: []", "spec.hosts: must have at least one host"),
        ("hosts: ['*']", "spec.hosts[0]: is *; it must not be * alone"),
        (
            "hosts: [a.b]\naddresses: [x]",
            "spec.addresses[0]: is x; it must be an IP address or a network such as 10.1.0.0/16",
        ),
        (
            f"hosts: [a.b]\naddresses: [10.0.0.0/8]\nresolution: DNS\n{HTTP}",
            "spec.addresses[0]: is 10.0.0.0/8; networks are for resolution NONE and STATIC only",
        ),
        (
            "hosts: [a.b]\nports: [{number: 80, name: a}, {number: 80, name: b}]",
            "spec.ports[1].number: is 80, which is there already",
        ),
        (
            "hosts: [a.b]\nports: [{number: 80, name: a, protocol: CARRIER}]",
            "spec.ports[0].protocol: is CARRIER; it must be one of GRPC, GRPC-WEB, HTTP, HTTP2, HTTP_PROXY, HTTPS, MONGO, "
            "MYSQL, REDIS, TCP, TLS, UDP",
        ),
        ("hosts: [a.b]\nports: [{number: 80}]", "spec.ports[0].name: is missing"),
        (
            "hosts: [a.b]\nendpoints: [{address: 1.1.1.1}]",
            "spec.endpoints: must not be given with resolution NONE",
        ),
        (
            "hosts: [a.b]\nresolution: STATIC\nendpoints: [{address: c.d}]",
            "spec.endpoints[0].address: is c.d; resolution STATIC needs an IP address (DNS takes names)",
        ),
        (
            f"hosts: [a.b]\nresolution: STATIC\n{HTTP}\nendpoints: [{{address: 1.1.1.1, ports: {{web: 1}}}}]",
            "spec.endpoints[0].ports.web: names no port of spec.ports",
        ),
        (
            "hosts: [a.b]\nresolution: STATIC\nworkloadSelector: {labels: {a: b}}\nendpoints: [{address: 1.1.1.1}]",
            "spec.workloadSelector: must not stand beside endpoints",
        ),
        (
            "hosts: ['*.b']\nresolution: DNS",
            "spec.hosts[0]: is *.b; resolution DNS without endpoints looks the hosts up",
        ),
        (
            "hosts: [a.b, c.d]\nresolution: DNS\nports: [{number: 1, name: x, protocol: TCP}]",
            "spec.ports[0]: must be an HTTP or TLS port, because there are several hosts to tell apart",
        ),
        (
            "hosts: ['*.b']\nresolution: DYNAMIC_DNS\nports: [{number: 443, name: tls, protocol: TLS}]",
            "spec.ports[0].protocol: is TLS, which with DYNAMIC_DNS is not supported by this version; name the hosts",
        ),
        (
            "hosts: [a.b]\nworkloadSelector: {labels: {a: 'b*'}}",
            "spec.workloadSelector.labels: has a: b*; wildcards are not allowed in a selector",
        ),
    ],
)
def test_an_entry_that_is_refused(text: str, said: str) -> None:
    assert said in entry(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("labels: {a: b}", "spec.address: is missing"),
        (
            "address: a_b",
            "spec.address: is 'a_b'; it must be an IP address, a host name or unix:// and a path",
        ),
        ("address: unix://x", "spec.address: is unix://x; it must be unix:///PATH or unix://@NAME"),
        ("address: unix:///x\nports: {a: 1}", "spec.ports: must not be given beside a unix:// address"),
        ("address: 1.1.1.1\nports: {a: 0}", "spec.ports.a: is 0; it must be 1 or more"),
        ("address: 1.1.1.1\nports: {a_b: 1}", "spec.ports.a_b: must be named as a DNS label"),
        ("address: 1.1.1.1\nweight: -1", "spec.weight: is -1; it must be 0 or more"),
    ],
)
def test_a_workload_entry_that_is_refused(text: str, said: str) -> None:
    assert said in findings_of("WorkloadEntry", text)
