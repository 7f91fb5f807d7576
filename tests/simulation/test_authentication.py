"""Who gets in, asked of the generated inbound listeners and the clusters of the callers."""

from __future__ import annotations

import pytest
from envoy.extensions.transport_sockets.tls.v3 import tls_pb2

from retia.model.resource import TypeUrl
from tests.simulation.traffic import Arrival, Hello, arrive, hello_of
from tests.support.world import World, outbound

PLAINTEXT = Hello(port=9080)
FOREIGN_TLS = Hello(port=9080, server_name="reviews.example", alpn=("h2",), tls=True)
MESH = Hello(15006, f"outbound_.9080_.v1_.{'reviews.default.svc.cluster.local'}", ("retia-l4",), tls=True)
MESH_H2 = Hello(15006, MESH.server_name, ("retia-h2",), tls=True)


def peer_authentication(spec: str, namespace: str = "default", name: str = "pa") -> str:
    return f"kind: PeerAuthentication\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}"


def mesh(*policies: str, http_inbound: bool = False) -> World:
    world = World().service("reviews", http_inbound=http_inbound).service("productpage", 9090)
    for policy in policies:
        world.apply(policy)
    return world


def at_reviews(world: World, hello: Hello) -> Arrival:
    return arrive(world.client("reviews"), hello)


MODES = [
    ("nothing said", [], True, True),
    ("mesh is strict", [peer_authentication("{mtls: {mode: STRICT}}", "istio-system")], False, True),
    ("namespace is strict", [peer_authentication("{mtls: {mode: STRICT}}")], False, True),
    ("namespace permits what the mesh forbids",
     [peer_authentication("{mtls: {mode: STRICT}}", "retia-system"),
      peer_authentication("{mtls: {mode: PERMISSIVE}}")], True, True),
    ("unset inherits",
     [peer_authentication("{mtls: {mode: STRICT}}", "retia-system"),
      peer_authentication("{mtls: {mode: UNSET}}")], False, True),
    ("workload over namespace",
     [peer_authentication("{mtls: {mode: PERMISSIVE}}"),
      peer_authentication("{selector: {matchLabels: {app: reviews}}, mtls: {mode: STRICT}}", name="w")],
     False, True),
    ("another workload's policy",
     [peer_authentication("{selector: {matchLabels: {app: ratings}}, mtls: {mode: STRICT}}")], True, True),
    ("a port over its workload",
     [peer_authentication("{selector: {matchLabels: {app: reviews}}, mtls: {mode: STRICT}, "
                          "portLevelMtls: {9080: {mode: PERMISSIVE}}}")], True, True),
    ("a selector in the root namespace selects nothing",
     [peer_authentication("{selector: {matchLabels: {app: reviews}}, mtls: {mode: STRICT}}", "retia-system")],
     True, True),
    ("the older of two",
     [peer_authentication("{mtls: {mode: STRICT}}", name="old"),
      peer_authentication("{mtls: {mode: PERMISSIVE}}", name="new")], False, True),
    ("disabled", [peer_authentication("{mtls: {mode: DISABLE}}")], True, True),
]  # fmt: skip


@pytest.mark.parametrize(
    ("policies", "plaintext", "mutual"), [m[1:] for m in MODES], ids=[m[0] for m in MODES]
)
def test_who_gets_in_by_mode(policies: list[str], plaintext: bool, mutual: bool) -> None:
    world = mesh(*policies)

    assert bool(at_reviews(world, PLAINTEXT).chain) is plaintext
    assert bool(at_reviews(world, FOREIGN_TLS).chain) is plaintext
    assert at_reviews(world, MESH).mutual_tls is mutual


def test_a_plaintext_call_to_a_strict_port_is_refused() -> None:
    world = mesh(peer_authentication("{mtls: {mode: STRICT}}"))

    assert at_reviews(world, PLAINTEXT) == Arrival()


def test_mutual_tls_ends_at_the_application_for_anybody_of_the_trust_domain() -> None:
    arrival = at_reviews(mesh(), MESH)

    assert arrival == Arrival("mtls-9080", "inbound|9080||", False, True, "spiffe://cluster.local/")


def test_plaintext_at_the_mutual_tls_port_is_refused() -> None:
    assert at_reviews(mesh(), Hello(15006)) == Arrival()
    assert at_reviews(mesh(), Hello(15006, "elsewhere.example", ("h2",), tls=True)) == Arrival()


def test_a_name_of_the_mesh_without_its_alpn_is_refused() -> None:
    assert at_reviews(mesh(), Hello(15006, MESH.server_name, ("h2",), tls=True)) == Arrival()


def test_a_policy_that_cannot_be_read_refuses_what_it_selects() -> None:
    from dataclasses import replace

    world = mesh(peer_authentication("{mtls: {mode: STRICT}}"))
    objects = [replace(obj, spec=None) for obj in world.objects()]
    world.objects = lambda: objects  # type: ignore[method-assign]

    assert at_reviews(world, PLAINTEXT) == Arrival()
    assert at_reviews(world, MESH) == Arrival()
    assert world.client("reviews").built(TypeUrl.LISTENER, "inbound").security


def test_a_listener_shaped_by_a_policy_says_so() -> None:
    built = (
        mesh(peer_authentication("{mtls: {mode: STRICT}}"))
        .client("reviews")
        .built(TypeUrl.LISTENER, "inbound")
    )

    assert built.security
    assert [(str(p.ref), p.field) for p in built.provenance] == [
        ("PeerAuthentication/default/pa", "spec.mtls.mode")
    ]
    assert not mesh().client("reviews").built(TypeUrl.LISTENER, "inbound").security


def test_http_is_parsed_where_the_workload_asks_for_it() -> None:
    world = mesh(http_inbound=True)

    assert at_reviews(world, MESH_H2).http
    assert at_reviews(world, MESH).http, "no depth may by-pass the other"
    assert at_reviews(world, PLAINTEXT).http
    assert not at_reviews(world, FOREIGN_TLS).http
    assert at_reviews(mesh(), MESH_H2) == Arrival()


@pytest.mark.parametrize("http_inbound", [False, True])
def test_what_a_client_says_is_what_the_server_expects(http_inbound: bool) -> None:
    world = mesh(http_inbound=http_inbound)
    client = world.client("productpage")

    hello = hello_of(client, outbound("reviews"))

    assert at_reviews(world, hello).cluster == "inbound|9080||"
    assert at_reviews(world, hello).mutual_tls
    assert hello.alpn == (("retia-h2",) if http_inbound else ("retia-l4",))


def test_a_service_in_front_of_a_workload_names_its_own_port() -> None:
    world = mesh().apply("""
        kind: Service
        metadata: {name: front}
        spec:
          selector: {app: reviews}
          ports: [{name: http, port: 80, targetPort: 9080}]
    """)
    client = world.client("productpage")

    assert at_reviews(world, hello_of(client, outbound("front", 80))).cluster == "inbound|9080||"


def test_two_services_with_one_port_reach_their_own_ports() -> None:
    world = World()
    world.service("app", 9080)
    from dataclasses import replace

    from retia.model.mesh import Protocol, WorkloadPort

    both = (WorkloadPort(9080, 9080, Protocol.HTTP), WorkloadPort(9081, 9081, Protocol.HTTP))
    world.workloads[0] = replace(world.workloads[0], ports=both)
    for name, target in (("front", 9080), ("admin", 9081)):
        world.apply(f"""
            kind: Service
            metadata: {{name: {name}}}
            spec:
              selector: {{app: app}}
              ports: [{{name: http, port: 80, targetPort: {target}}}]
        """)
    server = world.client("app")

    assert arrive(server, hello_of(server, outbound("front", 80))).cluster == "inbound|9080||"
    assert arrive(server, hello_of(server, outbound("admin", 80))).cluster == "inbound|9081||"


def test_a_client_verifies_the_identities_of_the_service() -> None:
    world = (
        World().service("reviews", versions=("v1", "v2"), account="shared").service("reviews", account="own")
    )
    socket = world.client("productpage").cluster(outbound("reviews")).transport_socket
    context = tls_pb2.UpstreamTlsContext()
    socket.typed_config.Unpack(context)
    validation = context.common_tls_context.combined_validation_context.default_validation_context

    assert [san.matcher.exact for san in validation.match_typed_subject_alt_names] == [
        "spiffe://cluster.local/ns/default/sa/own",
        "spiffe://cluster.local/ns/default/sa/shared",
    ]


def test_a_disabled_port_is_called_in_plaintext() -> None:
    world = mesh(peer_authentication("{mtls: {mode: DISABLE}}"))
    client = world.client("productpage")

    assert not client.cluster(outbound("reviews")).transport_socket.name
    assert client.addresses(outbound("reviews")) == ["127.64.0.1:9080"]
    assert at_reviews(world, PLAINTEXT).cluster == "inbound|9080||"


def test_a_mesh_and_a_plain_endpoint_of_one_service_are_told_apart() -> None:
    world = mesh().apply("""
        kind: Service
        metadata: {name: mixed}
        spec:
          selector: {tier: mixed}
          ports: [{name: http, port: 9080}]
        ---
        kind: WorkloadEntry
        metadata: {name: legacy}
        spec: {address: 10.0.0.9, labels: {tier: mixed}}
    """)
    world.service("extra", tier="mixed")
    client = world.client("productpage")
    cluster = client.cluster(outbound("mixed"))

    assert [m.match["wire"] for m in cluster.transport_socket_matches] == ["plain"]
    assert cluster.transport_socket.name == "envoy.transport_sockets.tls"
    assert client.addresses(outbound("mixed")) == ["10.0.0.9:9080", "127.64.0.3:15006"]


def test_a_destination_rule_may_switch_tls_off_for_a_client() -> None:
    world = mesh().apply("""
        kind: DestinationRule
        metadata: {name: reviews}
        spec: {host: reviews, trafficPolicy: {tls: {mode: DISABLE}}}
    """)
    client = world.client("productpage")

    assert not client.cluster(outbound("reviews")).transport_socket.name
    assert client.addresses(outbound("reviews")) == ["127.64.0.1:9080"]


def test_endpoints_of_another_host_are_behind_its_gateway() -> None:
    world = World().service("reviews", versions=("v1", "v2"), host="there", gateway="192.0.2.7:15443")
    world.service("reviews").service("productpage", 9090)

    client, at_gateway = world.client("productpage"), world.gateway("there")
    name = hello_of(client, outbound("reviews")).server_name

    assert client.addresses(outbound("reviews")) == ["127.64.0.3:15006", "192.0.2.7:15443"]
    assert at_gateway.addresses(name) == ["127.64.0.1:15006", "127.64.0.2:15006"]
    assert not at_gateway.cluster(name).transport_socket.name, "TLS is passed through unopened"


@pytest.mark.parametrize(
    "name",
    ["PassthroughCluster", "tcp|127.0.0.1:22", "outbound|9080||reviews.default.svc.cluster.local", "x"],
)
def test_a_stranger_cannot_name_any_cluster_at_a_gateway(name: str) -> None:
    assert not mesh().gateway().exists(TypeUrl.CLUSTER, name)
