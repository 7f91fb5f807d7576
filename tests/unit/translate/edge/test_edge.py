"""A gateway's listeners, routes and secrets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2, tls_pb2

from retia.model.resource import Name, TypeUrl
from retia.translate.consistency import problems
from tests.support.certificates import Pair
from tests.support.validating import complaints
from tests.support.world import Mesh, World

OWN, CLIENTS = Pair("shop.example"), Pair("clients.example")
GATEWAY = """
    kind: Gateway
    metadata: {name: gw}
    spec:
      selector: {istio: ingressgateway}
      servers:
      - {port: {number: 80, name: http, protocol: HTTP}, hosts: ["*.example"]}
      - {port: {number: 80, name: red, protocol: HTTP}, hosts: [red.example], tls: {httpsRedirect: true}}
      - port: {number: 443, name: https, protocol: HTTPS}
        hosts: [shop.example]
        tls: {mode: MUTUAL, credentialName: own, subjectAltNames: [spiffe://x/y, a.example, 192.0.2.1]}
      - port: {number: 5432, name: tcp, protocol: TCP}
        hosts: ["*"]
"""
ROUTES = """
    kind: VirtualService
    metadata: {name: vs}
    spec: {hosts: ["*.example"], gateways: [gw], http: [{route: [{destination: {host: web}}]}]}
    ---
    kind: VirtualService
    metadata: {name: db}
    spec: {hosts: ["*"], gateways: [gw], tcp: [{route: [{destination: {host: db, port: {number: 5432}}}]}]}
"""


def world() -> World:
    made = World().service("web").service("db", 5432, "tcp").apply(GATEWAY).apply(ROUTES)
    return made.apply(OWN.secret("own", CLIENTS)).apply(Pair("x.example").secret("unused"))


def mesh(**changes: Any) -> Mesh:
    return world().edge(**changes)


def manager(listener: Any) -> Any:
    return http_connection_manager_pb2.HttpConnectionManager.FromString(
        listener.filter_chains[0].filters[-1].typed_config.value
    )


def test_one_listener_for_each_port_and_one_that_tells_its_state() -> None:
    assert mesh().listed(TypeUrl.LISTENER) == ("status", "0.0.0.0_80", "0.0.0.0_443", "0.0.0.0_5432")
    assert mesh(edge_ports=((80, 8080), (443, 8443))).listed(TypeUrl.LISTENER) == (
        "status",
        "0.0.0.0_5432",
        "0.0.0.0_8080",
        "0.0.0.0_8443",
    )
    assert World().edge().listed(TypeUrl.LISTENER) == ("status",)


def test_all_that_is_referred_to_exists_and_is_valid(tmp_path: Path) -> None:
    here = mesh(edge_ports=((80, 18080), (443, 18443)))
    assert problems(here.get, here.roots()) == ()
    assert complaints(here.reachable(), tmp_path) == ""


def test_clients_are_strangers() -> None:
    http = manager(mesh().listener("0.0.0.0_80"))
    assert http.use_remote_address.value
    assert http.generate_request_id.value
    assert http.xff_num_trusted_hops == 0
    assert http.forward_client_cert_details == http.SANITIZE_SET
    trusting = mesh(annotations=(("retia.dev/trusted-proxies", "2"),))
    assert manager(trusting.listener("0.0.0.0_80")).xff_num_trusted_hops == 2


def test_a_port_is_bound_by_one_gateway_only() -> None:
    assert not mesh().listener("0.0.0.0_80").enable_reuse_port.value


def test_tls_asks_for_clients_certificates_by_secret() -> None:
    listener = mesh().listener("0.0.0.0_443")
    (chain,) = listener.filter_chains
    assert list(chain.filter_chain_match.server_names) == ["shop.example"]
    context = tls_pb2.DownstreamTlsContext.FromString(chain.transport_socket.typed_config.value)
    assert context.require_client_certificate.value
    common = context.common_tls_context
    assert [each.name for each in common.tls_certificate_sds_secret_configs] == ["kubernetes://own"]
    combined = common.combined_validation_context
    assert combined.validation_context_sds_secret_config.name == "kubernetes://own-cacert"
    kinds = [each.san_type for each in combined.default_validation_context.match_typed_subject_alt_names]
    assert kinds == [3, 2, 4], "URI, DNS, IP address"
    assert list(common.alpn_protocols) == ["h2", "http/1.1"]


def test_a_gateway_gets_the_secrets_that_its_servers_name_and_no_others() -> None:
    here = mesh()
    own = secret_pb2.Secret.FromString(here.built(TypeUrl.SECRET, "kubernetes://own").message or b"")
    assert own.tls_certificate.private_key.inline_bytes.decode() == OWN.private
    authority = secret_pb2.Secret.FromString(
        here.built(TypeUrl.SECRET, "kubernetes://own-cacert").message or b""
    )
    assert authority.validation_context.trusted_ca.inline_bytes.decode() == CLIENTS.chain
    for other in (
        "kubernetes://unused",
        "kubernetes://default/own",
        "kubernetes-gateway://default/own",
        "own",
    ):
        assert not here.exists(TypeUrl.SECRET, other), other
    other_gateway = world().edge(labels={"istio": "another"})
    assert not other_gateway.exists(TypeUrl.SECRET, "kubernetes://own")
    assert not world().client("web").exists(TypeUrl.SECRET, "kubernetes://own")


def test_a_rule_for_callers_gives_its_secret_to_gateways_and_to_those_it_selects() -> None:
    rule = """
        kind: DestinationRule
        metadata: {name: out}
        spec: {host: db, %strafficPolicy: {tls: {mode: MUTUAL, credentialName: unused}}}
    """
    plain = world().apply(rule % "")
    assert plain.edge().exists(TypeUrl.SECRET, "kubernetes://unused")
    assert not plain.client("web").exists(TypeUrl.SECRET, "kubernetes://unused")
    elsewhere = plain.apply(Pair("y.example").secret("unused", namespace="other")).edge()
    assert not elsewhere.exists(TypeUrl.SECRET, "kubernetes-gateway://other/unused")
    chosen = world().apply(rule % "workloadSelector: {matchLabels: {app: web}}, ")
    assert chosen.client("web", labels=(("app", "web"),)).exists(TypeUrl.SECRET, "kubernetes://unused")
    assert not chosen.client("db", labels=(("app", "db"),)).exists(TypeUrl.SECRET, "kubernetes://unused")


def test_a_redirect_names_the_port_that_is_really_bound() -> None:
    (red,) = [h for h in mesh().route_config("http.80").virtual_hosts if "red.example" in h.domains]
    assert red.require_tls == red.ALL
    moved = mesh(edge_ports=((80, 8080), (443, 8443)))
    (red,) = [h for h in moved.route_config("http.80").virtual_hosts if "red.example" in h.domains]
    assert [route.redirect.port_redirect for route in red.routes][:2] == [8443, 0]
    assert red.require_tls == red.NONE


def test_route_configurations_of_others_are_not_told() -> None:
    for name in ("9080", "http.81", "https.443.https.other.default", "explicit"):
        assert not mesh().exists(TypeUrl.ROUTE, name), name
    assert not world().client("web").exists(TypeUrl.ROUTE, "http.80")


def test_the_gateway_calls_services_as_sidecars_do() -> None:
    refs = mesh().built(TypeUrl.ROUTE, "http.80").refs
    name = "outbound|9080||web.default.svc.cluster.local"
    assert refs == (Name(TypeUrl.CLUSTER, name),)
    assert mesh().cluster(name) == world().client("db").cluster(name)


def test_tls_is_passed_on_to_what_the_gateway_sees() -> None:
    entry = """
        kind: ServiceEntry
        metadata: {name: db, namespace: %s}
        spec: {hosts: [db.%s], exportTo: ["."], ports: [{number: 443, name: tls, protocol: TLS}]}
    """
    passing = """
        kind: Gateway
        metadata: {name: pass}
        spec:
          selector: {istio: ingressgateway}
          servers:
          - {port: {number: 15443, name: tls, protocol: TLS}, hosts: ["*"], tls: {mode: AUTO_PASSTHROUGH}}
    """
    made = World().apply(passing).apply(entry % ("default", "near")).apply(entry % ("other", "far"))
    here = made.edge()
    assert here.exists(TypeUrl.CLUSTER, "outbound_.443_._.db.near")
    assert not here.exists(TypeUrl.CLUSTER, "outbound_.443_._.db.far")
    names = [each.name for each in here.listener("0.0.0.0_15443").filter_chains[0].filters]
    assert names[:2] == ["envoy.filters.network.rbac", "envoy.filters.network.sni_cluster"]


def test_grpc_web_is_spoken_where_the_port_says_so() -> None:
    text = GATEWAY.replace("name: http, protocol: HTTP}", "name: http, protocol: GRPC-WEB}")
    listener = World().apply(text).edge().listener("0.0.0.0_80")
    names = [each.name for each in manager(listener).http_filters]
    assert names == ["envoy.filters.http.grpc_web", "envoy.filters.http.router"]


def test_http3_is_offered_where_the_gateway_has_it(tmp_path: Path) -> None:
    text = GATEWAY.replace("mode: MUTUAL, ", "mode: SIMPLE, ")
    text = text.replace(", subjectAltNames: [spiffe://x/y, a.example, 192.0.2.1]", "")
    text = text.replace("number: 443", "number: 18443").replace("number: 80,", "number: 18080,")
    made = (
        World().service("web").service("db", 5432, "tcp").apply(text).apply(ROUTES).apply(OWN.secret("own"))
    )
    plain = made.edge()
    assert "udp_0.0.0.0_18443" not in plain.listed(TypeUrl.LISTENER)
    here = made.edge(annotations=(("retia.dev/http3", "true"),))
    assert "udp_0.0.0.0_18443" in here.listed(TypeUrl.LISTENER)
    assert "udp_0.0.0.0_18080" not in here.listed(TypeUrl.LISTENER)
    routes = "https.18443.https.gw.default"
    (offer,) = here.route_config(routes).response_headers_to_add
    assert offer.header.value == 'h3=":18443"; ma=86400'
    assert not plain.route_config(routes).response_headers_to_add
    assert complaints(here.reachable(), tmp_path) == ""


def test_who_must_show_a_certificate_gets_no_http3() -> None:
    assert not [
        n for n in mesh(annotations=(("retia.dev/http3", "true"),)).listed(TypeUrl.LISTENER) if "udp" in n
    ]
