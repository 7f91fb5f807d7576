"""Istio's Gateways: whose they are, and which of their servers stand beside one another."""

from __future__ import annotations

from retia.policy.edge import edge_hosts, edge_servers
from retia.policy.edge.forms import EdgeProtocol, EdgeServers
from tests.support.certificates import Pair
from tests.support.world import Mesh, World

SERVER = "{port: {number: %d, name: %s, protocol: %s}, hosts: %s%s}"


def server(port: int, protocol: str, hosts: str = "['*']", tls: str = "") -> str:
    more = f", tls: {tls}" if tls else ""
    return SERVER % (port, f"{protocol.lower()}-{port}", protocol, hosts, more)


def gateway(*servers: str, name: str = "gw", selector: str = "{istio: ingressgateway}") -> str:
    spec = f"{{selector: {selector}, servers: [{', '.join(servers)}]}}"
    return f"kind: Gateway\nmetadata: {{name: {name}}}\nspec: {spec}\n"


def found(mesh: Mesh) -> EdgeServers:
    return edge_servers(mesh.view)


def fields(mesh: Mesh) -> list[str]:
    return [f"{each.ref.name} {each.field}" for each in found(mesh).servers]


def test_a_selector_chooses_the_proxies() -> None:
    world = (
        World()
        .apply(gateway(server(80, "HTTP")))
        .apply(gateway(server(81, "HTTP"), name="all", selector="{}"))
    )
    assert fields(world.edge()) == ["gw spec.servers[0]", "all spec.servers[0]"]
    assert fields(world.edge(labels={"istio": "other"})) == ["all spec.servers[0]"]


def test_ports_are_bound_as_the_proxy_says() -> None:
    world = World().apply(gateway(server(80, "HTTP"), server(8080, "HTTP")))
    servers = found(world.edge(edge_ports=((80, 18080),))).servers
    assert [(each.port, each.bind_port) for each in servers] == [(80, 18080), (8080, 8080)]


def test_what_a_port_speaks() -> None:
    parts = [server(80 + n, p) for n, p in enumerate(("HTTP", "HTTP2", "GRPC", "GRPC-WEB", "TCP", "MONGO"))]
    parts += [
        server(443, "HTTPS", tls="{mode: PASSTHROUGH}"),
        server(444, "HTTPS", tls="{mode: ISTIO_MUTUAL}"),
    ]
    servers = found(World().apply(gateway(*parts)).edge()).servers
    http, tcp = EdgeProtocol.HTTP, EdgeProtocol.TCP
    kinds = [each.protocol for each in servers]
    assert kinds == [http] * 4 + [tcp] * 2 + [EdgeProtocol.TLS, EdgeProtocol.HTTPS]
    assert [each.grpc_web for each in servers][:4] == [False, False, False, True]


def test_the_older_server_keeps_a_port_that_two_speak_differently() -> None:
    world = (
        World().apply(gateway(server(80, "HTTP"), name="old")).apply(gateway(server(80, "TCP"), name="new"))
    )
    assert fields(world.edge()) == ["old spec.servers[0]"]
    (said,) = found(world.edge()).findings
    assert said.code == "RT0306"
    assert str(said.ref) == "Gateway/default/new"


def test_the_older_server_keeps_a_server_name() -> None:
    tls = "{mode: PASSTHROUGH}"
    world = World().apply(gateway(server(443, "TLS", "[a.example, b.example]", tls), name="old"))
    world.apply(gateway(server(443, "TLS", "[b.example]", tls), name="new"))
    world.apply(gateway(server(443, "TLS", "[c.example]", tls), name="third"))
    assert fields(world.edge()) == ["old spec.servers[0]", "third spec.servers[0]"]
    assert [each.code for each in found(world.edge()).findings] == ["RT0304"]


def test_without_a_certificate_a_server_is_left_out_and_said() -> None:
    world = World().apply(gateway(server(443, "HTTPS", tls="{mode: SIMPLE, credentialName: it}")))
    assert fields(world.edge()) == []
    (said,) = found(world.edge()).findings
    assert (said.code, said.field) == ("RT0316", "spec.servers[0].tls")
    assert "there is no Secret default/it" in said.message
    world.apply(Pair("a.example").secret("it"))
    assert fields(world.edge()) == ["gw spec.servers[0]"]


def test_secrets_are_of_the_proxys_namespace() -> None:
    world = World().apply(gateway(server(443, "HTTPS", tls="{mode: SIMPLE, credentialName: it}")))
    world.apply(Pair("a.example").secret("it", namespace="infra"))
    assert fields(world.edge()) == []
    assert fields(world.edge("infra")) == ["gw spec.servers[0]"]
    foreign = gateway(
        server(444, "HTTPS", tls="{mode: SIMPLE, credentialName: kubernetes://infra/it}"), name="f"
    )
    assert fields(world.apply(foreign).edge()) == []


def test_of_two_providers_keys_each_finds_its_own() -> None:
    assert edge_hosts(World().edge().view, "nobody/x") == ()
