"""Listeners: what a proxy listens on, and how connections are told apart."""

from __future__ import annotations

from typing import Any

from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from envoy.extensions.filters.network.set_filter_state.v3 import set_filter_state_pb2
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2

from retia.model.mesh import Upstream
from retia.model.resource import TypeUrl
from tests.support.world import Mesh, World, fqdn, outbound


def mesh(**changes: Any) -> Mesh:
    world = World().service("reviews").service("db", 5432, "tcp").service("guess", 7000, "auto")
    return world.client("reviews", **changes)


def manager_of(chain: Any) -> Any:
    manager = http_connection_manager_pb2.HttpConnectionManager()
    assert chain.filters[-1].typed_config.Unpack(manager)
    return manager


def tcp_of(chain: Any) -> Any:
    proxy = tcp_proxy_pb2.TcpProxy()
    assert chain.filters[-1].typed_config.Unpack(proxy)
    return proxy


def test_a_proxy_has_the_listeners_whose_ports_it_was_given() -> None:
    assert mesh().listed(TypeUrl.LISTENER) == ("inbound", "outbound-auto", "outbound-http", "outbound-tcp")
    assert mesh(
        outbound_http_port=0,
        outbound_auto_port=0,
        outbound_tcp_port=0,
        inbound_address="",
        explicit_port=15001,
    ).listed(TypeUrl.LISTENER) == ("explicit",)
    assert not mesh().exists(TypeUrl.LISTENER, "explicit")
    assert not mesh().exists(TypeUrl.LISTENER, "junk")


def test_one_chain_for_each_declared_http_port() -> None:
    listener = mesh().listener("outbound-http")

    assert [c.filter_chain_match.destination_port.value for c in listener.filter_chains] == [9080]
    assert [f.name for f in listener.listener_filters] == ["envoy.filters.listener.original_dst"]
    assert manager_of(listener.filter_chains[0]).rds.route_config_name == "9080"
    assert tcp_of(listener.default_filter_chain).cluster == "BlackHoleCluster"


def test_a_hanging_first_request_is_bounded() -> None:
    manager = manager_of(mesh().listener("outbound-http").filter_chains[0])

    assert manager.stream_idle_timeout.seconds == 6


def test_undeclared_ports_look_at_the_first_bytes_for_200_ms() -> None:
    listener = mesh().listener("outbound-auto")

    assert [f.name.rpartition(".")[2] for f in listener.listener_filters] == [
        "original_dst",
        "tls_inspector",
        "http_inspector",
    ]
    assert listener.listener_filters_timeout.nanos == 200_000_000
    assert listener.continue_on_listener_filters_timeout
    assert list(listener.filter_chains[0].filter_chain_match.application_protocols) == [
        "http/1.0",
        "http/1.1",
        "h2c",
    ]


def test_opaque_tcp_names_its_cluster_by_the_address_dialled() -> None:
    (chain,) = mesh().listener("outbound-tcp").filter_chains
    state = set_filter_state_pb2.Config()
    chain.filters[0].typed_config.Unpack(state)

    assert state.on_new_connection[0].object_key == "envoy.tcp_proxy.cluster"
    assert (
        state.on_new_connection[0].format_string.text_format_source.inline_string
        == "tcp|%DOWNSTREAM_LOCAL_ADDRESS%"
    )
    assert tcp_of(chain).HasField("on_demand")


def test_every_route_config_has_a_placeholder_that_unblocks_its_listener() -> None:
    assert mesh(explicit_port=15080).listed(TypeUrl.VIRTUAL_HOST) == ("7000/_", "9080/_", "explicit/_")
    built = mesh().built(TypeUrl.VIRTUAL_HOST, "9080/_")
    assert (built.message, built.aliases) == (None, ("9080/_",))


def test_a_new_service_on_a_known_port_changes_no_listener() -> None:
    world = World().service("reviews")
    before = world.client("reviews").built(TypeUrl.LISTENER, "outbound-http").message
    world.service("ratings")

    assert world.client("reviews").built(TypeUrl.LISTENER, "outbound-http").message == before


def test_an_upstream_port_speaks_its_services_protocol() -> None:
    local = mesh(
        upstreams=(
            Upstream(9001, fqdn("reviews"), 9080),
            Upstream(9002, fqdn("db"), 5432),
            Upstream(9003, fqdn("guess"), 7000),
        )
    )

    http, tcp, auto = (local.listener(f"upstream-{port}") for port in (9001, 9002, 9003))
    (virtual_host,) = local.route_config("upstream-9001").virtual_hosts

    assert http.address.socket_address.address == "127.0.0.1"
    assert manager_of(http.filter_chains[0]).rds.route_config_name == "upstream-9001"
    assert virtual_host.routes[0].route.cluster == outbound("reviews")
    assert virtual_host.routes[0].route.host_rewrite_literal == f"{fqdn('reviews')}:9080"
    assert tcp_of(tcp.filter_chains[0]).cluster == outbound("db", 5432)
    assert tcp_of(auto.default_filter_chain).cluster == outbound("guess", 7000)


def test_an_explicit_proxy_takes_the_port_from_the_authority() -> None:
    world = World().service("reviews").service("web", 80)
    local = world.client("reviews", explicit_port=15080)

    web = local.virtual_host("explicit/web")
    reviews = local.virtual_host("explicit/reviews:9080")

    assert web.routes[-1].route.cluster == outbound("web", 80)
    assert "reviews" not in reviews.domains, "without a port it would be another service's port"
    assert reviews.routes[0].match.HasField("connect_matcher")
    assert local.virtual_host("explicit/example.com").routes[-1].route.cluster == "ForwardProxyCluster"


def test_the_inbound_listener_is_at_the_published_address_on_all_ports() -> None:
    listener = mesh().listener("inbound")
    sockets = [listener.address, *(extra.address for extra in listener.additional_addresses)]

    assert [(s.socket_address.address, s.socket_address.port_value) for s in sockets] == [
        ("127.64.0.1", 15006),
        ("127.64.0.1", 9080),
    ]


def test_the_inbound_clusters_lead_to_the_application() -> None:
    local = mesh()

    assert local.listed(TypeUrl.CLUSTER) == ("inbound|9080||",)
    socket = local.cluster("inbound|9080||").load_assignment.endpoints[0].lb_endpoints[0].endpoint.address
    assert (socket.socket_address.address, socket.socket_address.port_value) == ("127.65.0.1", 9080)
    assert not local.exists(TypeUrl.CLUSTER, "inbound|1||")
