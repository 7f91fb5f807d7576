"""Clusters, field by field where a field has a reason."""

from __future__ import annotations

from typing import Any

import pytest
from envoy.config.cluster.v3 import cluster_pb2
from envoy.extensions.transport_sockets.tls.v3 import tls_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2

from retia.model.resource import Name, TypeUrl
from retia.translate.upstream import HTTP_OPTIONS
from tests.support.world import World, fqdn, outbound

Cluster = cluster_pb2.Cluster
EXTERNAL = """
    kind: ServiceEntry
    metadata: {name: api}
    spec:
      hosts: [api.example.com]
      ports: [{number: 443, name: tls, protocol: HTTP}, {number: 80, name: http, protocol: HTTP}]
      resolution: %s
"""


def with_policy(policy: str, **service: Any) -> Any:
    world = (
        World()
        .service("reviews", **service)
        .apply(f"""
        kind: DestinationRule
        metadata: {{name: reviews}}
        spec: {{host: reviews, trafficPolicy: {policy}}}
    """)
    )
    return world.client().cluster(outbound("reviews"))


def codec(cluster: Any) -> str:
    options = http_protocol_options_pb2.HttpProtocolOptions()
    cluster.typed_extension_protocol_options[HTTP_OPTIONS].Unpack(options)
    if options.HasField("use_downstream_protocol_config"):
        return "client's"
    return str(options.explicit_http_config.WhichOneof("protocol_config")).removesuffix("_protocol_options")


@pytest.mark.parametrize(
    ("protocol", "depth", "expected"),
    [
        ("http", False, "http"),
        ("http2", False, "http2"),
        ("grpc", False, "http2"),
        ("auto", False, "client's"),
        ("http", True, "http2"),
        ("grpc", True, "http2"),
        ("auto", True, "client's"),
    ],
)
def test_the_codec_is_the_applications_own_unless_the_peer_parses_http(
    protocol: str, depth: bool, expected: str
) -> None:
    world = World().service("reviews", 9080, protocol, http_inbound=depth)

    assert codec(world.client().cluster(outbound("reviews"))) == expected


def test_opaque_tcp_has_no_codec() -> None:
    world = World().service("db", 5432, "tcp")

    assert not world.client().cluster(outbound("db", 5432)).typed_extension_protocol_options


def test_the_wait_for_endpoints_is_short_because_it_holds_up_all_others() -> None:
    cluster = World().service("reviews").client().cluster(outbound("reviews"))

    assert cluster.eds_cluster_config.service_name == outbound("reviews")
    assert cluster.eds_cluster_config.eds_config.initial_fetch_timeout.seconds == 1


def test_without_a_rule_nothing_is_limited_or_ejected() -> None:
    cluster = World().service("reviews").client().cluster(outbound("reviews"))
    (limits,) = cluster.circuit_breakers.thresholds

    assert {limits.max_connections.value, limits.max_retries.value, limits.max_requests.value} == {2**32 - 1}
    assert not cluster.HasField("outlier_detection")
    assert cluster.lb_policy == Cluster.LEAST_REQUEST
    assert cluster.connect_timeout.seconds == 10


@pytest.mark.parametrize(
    ("balancer", "policy"),
    [
        ("{simple: ROUND_ROBIN}", Cluster.ROUND_ROBIN),
        ("{simple: RANDOM}", Cluster.RANDOM),
        ("{simple: LEAST_REQUEST}", Cluster.LEAST_REQUEST),
        ("{consistentHash: {useSourceIp: true}}", Cluster.RING_HASH),
        ("{consistentHash: {useSourceIp: true, maglev: {tableSize: 1021}}}", Cluster.MAGLEV),
    ],
)
def test_balancing(balancer: str, policy: int) -> None:
    assert with_policy(f"{{loadBalancer: {balancer}}}").lb_policy == policy


def test_pools_and_outliers_are_applied() -> None:
    cluster = with_policy(
        "{connectionPool:"
        " {tcp: {maxConnections: 3, connectTimeout: 300ms}, http: {http1MaxPendingRequests: 1}}"
        ", outlierDetection: {consecutive5xxErrors: 2, consecutiveGatewayErrors: 0, baseEjectionTime: 400s}}"
    )
    (limits,) = cluster.circuit_breakers.thresholds
    outlier = cluster.outlier_detection

    assert (limits.max_connections.value, limits.max_pending_requests.value) == (3, 1)
    assert cluster.connect_timeout.nanos == 300_000_000
    assert (outlier.consecutive_5xx.value, outlier.enforcing_consecutive_5xx.value) == (2, 100)
    assert outlier.enforcing_consecutive_gateway_failure.value == 0
    assert outlier.max_ejection_time.seconds == 400, "Envoy refuses one below the base"
    assert outlier.always_eject_one_host.value


def test_an_unknown_service_port_or_subset_is_absent() -> None:
    client = World().service("reviews").client()

    for name in (outbound("nowhere"), outbound("reviews", 1), outbound("reviews", subset="v9"), "junk"):
        assert not client.exists(TypeUrl.CLUSTER, name)


def test_a_dialled_address_shares_the_endpoints_of_its_service() -> None:
    client = World().service("db", 5432, "tcp").client()

    cluster = client.cluster("tcp|240.240.0.1:5432")

    assert cluster.name == "tcp|240.240.0.1:5432"
    assert cluster.alt_stat_name == cluster.eds_cluster_config.service_name == outbound("db", 5432)
    assert client.built(TypeUrl.CLUSTER, cluster.name).refs == (
        Name(TypeUrl.ENDPOINTS, outbound("db", 5432)),
    )


def test_bytes_to_a_parsing_peer_are_told_apart_by_alpn() -> None:
    """An opaque connection to an HTTP port must not be taken for HTTP/2 between proxies."""
    client = World().service("reviews", http_inbound=True).client()
    context = tls_pb2.UpstreamTlsContext()
    client.cluster("tcp|240.240.0.1:9080").transport_socket.typed_config.Unpack(context)

    assert list(context.common_tls_context.alpn_protocols) == ["retia-l4"]


def test_an_unknown_address_is_passed_on_or_refused() -> None:
    name = "tcp|192.0.2.1:99"

    assert World().client().cluster(name).type == Cluster.ORIGINAL_DST
    assert not World(outbound_allow_any=False).client().exists(TypeUrl.CLUSTER, name)


def test_connections_of_a_tcp_rule_go_where_it_says() -> None:
    world = (
        World()
        .service("db", 5432, "tcp")
        .service("backup", 5433, "tcp")
        .apply("""
        kind: VirtualService
        metadata: {name: db}
        spec: {hosts: [db], tcp: [{route: [{destination: {host: backup, port: {number: 5433}}}]}]}
    """)
    )

    vip = world.snapshot().get(("service", fqdn("db"))).vip
    cluster = world.client().cluster(f"tcp|{vip}:5432")

    assert cluster.eds_cluster_config.service_name == outbound("backup", 5433)


def test_names_outside_the_mesh_are_looked_up_without_holding_up_others() -> None:
    cluster = World().apply(EXTERNAL % "DNS").client().cluster("outbound|80||api.example.com")

    assert cluster.type == Cluster.STRICT_DNS
    assert not cluster.wait_for_warm_on_init.value
    assert not cluster.transport_socket.name
    socket = cluster.load_assignment.endpoints[0].lb_endpoints[0].endpoint.address.socket_address
    assert (socket.address, socket.port_value) == ("api.example.com", 80)


def test_a_service_without_resolution_goes_where_the_client_dialled() -> None:
    cluster = World().apply(EXTERNAL % "NONE").client().cluster("outbound|80||api.example.com")

    assert (cluster.type, cluster.lb_policy) == (Cluster.ORIGINAL_DST, Cluster.CLUSTER_PROVIDED)


def test_tls_to_the_outside_verifies_the_servers_name() -> None:
    world = (
        World()
        .apply(EXTERNAL % "DNS")
        .apply("""
        kind: DestinationRule
        metadata: {name: api}
        spec: {host: api.example.com, trafficPolicy: {tls: {mode: SIMPLE}}}
    """)
    )
    context = tls_pb2.UpstreamTlsContext()
    world.client().cluster("outbound|443||api.example.com").transport_socket.typed_config.Unpack(context)
    validation = context.common_tls_context.validation_context

    assert context.sni == "api.example.com"
    assert [san.matcher.exact for san in validation.match_typed_subject_alt_names] == ["api.example.com"]
    assert validation.trusted_ca.filename == "/etc/ssl/certs/ca-certificates.crt"
    assert list(context.common_tls_context.alpn_protocols) == ["http/1.1"]


def test_sessions_are_resumed() -> None:
    context = tls_pb2.UpstreamTlsContext()
    World().service("reviews").client().cluster(outbound("reviews")).transport_socket.typed_config.Unpack(
        context
    )

    assert context.max_session_keys.value == 32


def test_a_service_without_endpoints_is_expected_under_its_own_name() -> None:
    world = World().apply("""
        kind: Service
        metadata: {name: empty}
        spec: {selector: {app: empty}, ports: [{name: http, port: 80}]}
    """)
    context = tls_pb2.UpstreamTlsContext()
    world.client().cluster(outbound("empty", 80)).transport_socket.typed_config.Unpack(context)
    validation = context.common_tls_context.combined_validation_context.default_validation_context

    assert [san.matcher.exact for san in validation.match_typed_subject_alt_names] == [
        "spiffe://cluster.local/ns/default/sa/empty"
    ]
    assert world.client().addresses(outbound("empty", 80)) == []
