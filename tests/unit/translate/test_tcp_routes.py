"""Connections by rules: the clusters and internal listeners that they get."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2

from retia.model.mesh import Upstream
from retia.model.resource import Name, TypeUrl
from tests.support.validating import complaints
from tests.support.world import Mesh, World, fqdn

DB = "240.240.0.1"
SUBSETS = """
    kind: DestinationRule
    metadata: {name: db}
    spec:
      host: db
      subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]
"""


def rules(spec: str, name: str = "db") -> str:
    return f"kind: VirtualService\nmetadata: {{name: {name}}}\nspec: {spec}"


def world() -> World:
    mesh = World().service("db", 5432, "tcp", versions=("v1", "v2")).service("other", 5433, "tcp")
    return mesh.service("web").apply(SUBSETS)


def shares(chain: Any) -> dict[str, int]:
    """The clusters of a chain with their weights."""
    proxy = tcp_proxy_pb2.TcpProxy.FromString(chain.filters[-1].typed_config.value)
    if proxy.cluster:
        return {proxy.cluster: 0}
    return {each.name: each.weight for each in proxy.weighted_clusters.clusters}


def through(mesh: Mesh, dialled: str) -> Any:
    """The internal listener of a dialled address; ``None``: its cluster is a destination's own."""
    cluster = mesh.cluster(f"tcp|{dialled}")
    if not cluster.HasField("load_assignment"):
        return None
    (group,) = cluster.load_assignment.endpoints
    name = group.lb_endpoints[0].endpoint.address.envoy_internal_address.server_listener_name
    assert mesh.built(TypeUrl.CLUSTER, f"tcp|{dialled}").refs == (Name(TypeUrl.LISTENER, name),)
    return mesh.listener(name)


def test_weights_split_connections_in_an_internal_listener() -> None:
    split = "{hosts: [db], tcp: [{route: [{destination: {host: db, subset: v1}, weight: 9},"
    split += " {destination: {host: db, subset: v2}, weight: 1}]}]}"
    mesh = world().apply(rules(split)).client("web")
    listener = through(mesh, f"{DB}:5432")
    assert listener.HasField("internal_listener")
    assert not listener.listener_filters
    (chain,) = listener.filter_chains
    assert shares(chain) == {
        f"outbound|5432|v1|{fqdn('db')}": 9,
        f"outbound|5432|v2|{fqdn('db')}": 1,
    }


def test_a_single_destination_needs_no_listener() -> None:
    mesh = world().apply(rules("{hosts: [db], tcp: [{route: [{destination: {host: other}}]}]}")).client("web")
    assert through(mesh, f"{DB}:5432") is None
    assert mesh.cluster(f"tcp|{DB}:5432").alt_stat_name == f"outbound|5433||{fqdn('other')}"
    assert not mesh.exists(TypeUrl.LISTENER, f"{DB}_5432")


def test_the_rule_of_another_port_network_source_or_gateway_is_passed_over() -> None:
    for condition in (
        "port: 5433",
        "destinationSubnets: [10.0.0.0/8]",
        "sourceLabels: {app: other}",
        "sourceNamespace: other",
        "gateways: [ingress]",
    ):
        rule = f"{{match: [{{{condition}}}], route: [{{destination: {{host: other}}}}]}}"
        text = rules(f"{{hosts: [db], gateways: [mesh, ingress], tcp: [{rule}]}}")
        mesh = world().apply(text).client("web")
        assert mesh.cluster(f"tcp|{DB}:5432").alt_stat_name == f"outbound|5432||{fqdn('db')}", condition


def test_the_rule_of_this_port_network_source_and_gateway_holds() -> None:
    match = "{port: 5432, destinationSubnets: [240.240.0.0/16], sourceLabels: {app: web},"
    match += " sourceNamespace: default, gateways: [mesh]}"
    rule = f"{{match: [{match}], route: [{{destination: {{host: other}}}}]}}"
    mesh = world().apply(rules(f"{{hosts: [db], tcp: [{rule}]}}")).client("web")
    assert mesh.cluster(f"tcp|{DB}:5432").alt_stat_name == f"outbound|5433||{fqdn('other')}"


def test_server_names_are_matched_and_others_go_to_the_service_itself() -> None:
    tls = "{hosts: [db, '*.example.com'], tls: ["
    tls += "{match: [{sniHosts: [a.example.com, b.example.com]}], route: [{destination: {host: other}}]},"
    tls += "{match: [{sniHosts: ['*.example.com']}], route: [{destination: {host: db, subset: v2}}]}]}"
    mesh = world().apply(rules(tls)).client("web")
    listener = through(mesh, f"{DB}:5432")
    assert [f.name for f in listener.listener_filters] == ["envoy.filters.listener.tls_inspector"]
    assert listener.continue_on_listener_filters_timeout
    assert [(list(c.filter_chain_match.server_names), list(shares(c))) for c in listener.filter_chains] == [
        (["a.example.com", "b.example.com"], [f"outbound|5433||{fqdn('other')}"]),
        (["*.example.com"], [f"outbound|5432|v2|{fqdn('db')}"]),
    ]
    assert list(shares(listener.default_filter_chain)) == [f"outbound|5432||{fqdn('db')}"]


def test_objects_for_one_host_share_the_server_names_the_older_first() -> None:
    first = "{hosts: ['*.example.com', db], tls: [{match: [{sniHosts: [a.example.com]}], route: "
    first += "[{destination: {host: other}}]}]}"
    second = "{hosts: ['*.example.com', db], tls: [{match: [{sniHosts: [a.example.com, c.example.com]}], "
    second += "route: [{destination: {host: db, subset: v1}}]}]}"
    mesh = world().apply(rules(first, "first")).apply(rules(second, "second")).client("web")
    chains = through(mesh, f"{DB}:5432").filter_chains
    assert [list(c.filter_chain_match.server_names) for c in chains] == [["a.example.com"], ["c.example.com"]]
    (note,) = mesh.built(TypeUrl.CLUSTER, f"tcp|{DB}:5432").findings
    assert (note.code, str(note.ref)) == ("RT0304", "VirtualService/default/second")


def test_bytes_to_an_http_port_have_a_cluster_that_promises_no_http() -> None:
    mesh = (
        world()
        .service("page", http_inbound=True)
        .apply(
            rules(
                "{hosts: [db], tcp: [{route: [{destination: {host: page}, weight: 1},"
                " {destination: {host: other}, weight: 1}]}]}"
            )
        )
        .client("web")
    )
    (chain,) = through(mesh, f"{DB}:5432").filter_chains
    name = f"opaque|9080||{fqdn('page')}"
    assert name in shares(chain)
    assert not mesh.cluster(name).typed_extension_protocol_options


def test_a_local_port_that_stands_for_a_service_has_the_rules_itself() -> None:
    split = "{hosts: [db], tcp: [{route: [{destination: {host: db, subset: v1}, weight: 1},"
    split += " {destination: {host: other}, weight: 3}]}]}"
    mesh = world().apply(rules(split)).client("web", upstreams=(Upstream(9002, fqdn("db"), 5432),))
    (chain,) = mesh.listener("upstream-9002").filter_chains
    assert sorted(shares(chain).values()) == [1, 3]


def test_a_proxy_accepts_what_is_generated(tmp_path: Path) -> None:
    split = "{hosts: [db, '*.example.com'], tcp: [{route: [{destination: {host: db, subset: v1}, weight: 9},"
    split += " {destination: {host: web}, weight: 2147483647}]}], tls: ["
    split += "{match: [{sniHosts: ['*.example.com', a.example.com]}], route:"
    split += " [{destination: {host: other}}]}]}"
    mesh = world().apply(rules(split)).client("web")
    queue = [Name(TypeUrl.CLUSTER, f"tcp|{DB}:5432")]
    found = {}
    while queue:
        name = queue.pop()
        if name not in found:
            found[name] = mesh.get(name)
            queue += found[name].refs
    assert complaints([(n, b) for n, b in found.items() if n.type is not TypeUrl.ENDPOINTS], tmp_path) == ""
