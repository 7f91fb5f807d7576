"""EnvoyFilter: what each operation does to what is generated, asked by Istio's own names."""

from __future__ import annotations

import textwrap
from typing import Any

import pytest
from envoy.extensions.filters.http.lua.v3 import lua_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2

from retia.model.resource import Name, TypeUrl
from tests.support.validating import complaints
from tests.support.world import Mesh, World, outbound

LUA = """\
name: lua
typed_config:
  "@type": type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua
  default_source_code: {inline_string: "function envoy_on_request(h) end"}
"""


def envoy_filter(
    patch: str, *, name: str = "f", namespace: str = "default", selector: str = "", priority: int = 0
) -> str:
    lines = [
        "kind: EnvoyFilter",
        f"metadata: {{name: {name}, namespace: {namespace}}}",
        "spec:",
        f"  priority: {priority}",
        *([f"  workloadSelector: {{labels: {selector}}}"] if selector else []),
        "  configPatches:",
        textwrap.indent(textwrap.dedent(patch), "  "),
    ]
    return "\n".join(lines)


def insert(operation: str, match: str = "", value: str = LUA, apply_to: str = "HTTP_FILTER") -> str:
    text = f"- applyTo: {apply_to}\n"
    if match:
        text += f"  match: {match}\n"
    return text + f"  patch:\n    operation: {operation}\n    value:\n" + textwrap.indent(value, "      ")


ROUTER = (
    "{context: SIDECAR_OUTBOUND, listener: {filterChain: {filter: {name: envoy.filters.network."
    "http_connection_manager, subFilter: {name: envoy.filters.http.router}}}}}"
)


def world(*texts: str) -> World:
    made = World().service("reviews", versions=("v1", "v2"), http_inbound=True).service("productpage", 9090)
    made.service("db", 5432, "tcp")
    for text in texts:
        made.apply(text)
    return made


def client(*texts: str) -> Mesh:
    return world(*texts).client("productpage")


def manager(mesh: Mesh, listener: str = "outbound-http", chain: str = "9080") -> Any:
    found = next(c for c in mesh.listener(listener).filter_chains if c.name == chain)
    message = http_connection_manager_pb2.HttpConnectionManager()
    found.filters[0].typed_config.Unpack(message)
    return message


def names(mesh: Mesh, listener: str = "outbound-http", chain: str = "9080") -> list[str]:
    return [
        each.name.removeprefix("envoy.filters.http.") for each in manager(mesh, listener, chain).http_filters
    ]


@pytest.mark.parametrize(
    ("patch", "expected"),
    [
        (insert("INSERT_BEFORE", ROUTER), ["on_demand", "lua", "router"]),
        (insert("INSERT_FIRST"), ["lua", "on_demand", "router"]),
        (insert("INSERT_BEFORE"), ["lua", "on_demand", "router"]),
        (insert("INSERT_AFTER", ROUTER.replace("http.router", "http.on_demand")),
         ["on_demand", "lua", "router"]),
        (insert("INSERT_BEFORE", ROUTER.replace("envoy.filters.http.router", "envoy.router")),
         ["on_demand", "lua", "router"]),
        (insert("INSERT_BEFORE", ROUTER.replace("http.router", "http.absent")), ["on_demand", "router"]),
        (insert("INSERT_BEFORE", ROUTER.replace("OUTBOUND", "INBOUND")), ["on_demand", "router"]),
        (insert("REPLACE", ROUTER.replace("http.router", "http.on_demand")), ["lua", "router"]),
        (insert("REMOVE", ROUTER.replace("http.router", "http.on_demand")), ["router"]),
        (insert("INSERT_FIRST", "{listener: {portNumber: 9080}}"), ["lua", "on_demand", "router"]),
        (insert("INSERT_FIRST", "{listener: {portNumber: 1}}"), ["on_demand", "router"]),
        (insert("INSERT_FIRST", "{listener: {name: virtualOutbound}}"), ["lua", "on_demand", "router"]),
        (insert("INSERT_FIRST", "{listener: {name: 0.0.0.0_9080}}"), ["lua", "on_demand", "router"]),
        (insert("INSERT_FIRST", "{context: GATEWAY}"), ["on_demand", "router"]),
        (insert("INSERT_FIRST", "{cluster: {}}"), ["on_demand", "router"]),
    ],
)  # fmt: skip
def test_http_filters_are_put_where_the_operation_says(patch: str, expected: list[str]) -> None:
    assert names(client(envoy_filter(patch))) == expected


def test_filters_of_the_application_side_are_found_by_its_port() -> None:
    mesh = world(
        envoy_filter(insert("INSERT_FIRST", "{context: SIDECAR_INBOUND, listener: {portNumber: 9080}}"))
    )
    assert names(mesh.client("reviews"), "inbound", "mtls-9080") == ["lua", "router"]
    assert names(mesh.client("productpage")) == ["on_demand", "router"]


def test_a_selector_and_a_namespace_say_whose_proxies_are_changed() -> None:
    lua = insert("INSERT_FIRST")
    assert "lua" in names(client(envoy_filter(lua, selector="{app: productpage}")))
    assert "lua" not in names(client(envoy_filter(lua, selector="{app: reviews}")))
    assert "lua" not in names(client(envoy_filter(lua, namespace="team")))
    assert "lua" in names(client(envoy_filter(lua, namespace="istio-system")))


def test_the_root_namespace_comes_first_then_priority_then_age() -> None:
    def first(name: str) -> str:
        return insert("INSERT_FIRST", value=LUA.replace("name: lua", f"name: {name}"))

    mesh = client(
        envoy_filter(first("late"), name="a", priority=5),
        envoy_filter(first("early"), name="b", priority=-5),
        envoy_filter(first("root"), name="c", namespace="retia-system", priority=9),
    )
    assert names(mesh)[:3] == ["late", "early", "root"]  # each goes before what is there


def test_merge_reaches_into_packed_messages() -> None:
    merge = """\
    - applyTo: NETWORK_FILTER
      match: {context: SIDECAR_OUTBOUND, listener: {filterChain: {filter: {name: envoy.http_connection_manager}}}}
      patch:
        operation: MERGE
        value:
          typed_config:
            "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
            max_request_headers_kb: 96
            stream_idle_timeout: 9s
    """  # noqa: E501
    found = manager(client(envoy_filter(merge)))
    assert found.max_request_headers_kb.value == 96
    assert found.stream_idle_timeout.seconds == 9
    assert found.rds.route_config_name == "9080"


def test_clusters_are_found_by_service_port_and_subset() -> None:
    def limited(match: str) -> Any:
        patch = insert(
            "MERGE", f"{{cluster: {match}}}", "connect_timeout: 0.5s\nlb_policy: RING_HASH\n", "CLUSTER"
        )
        return client(envoy_filter(patch)).cluster(outbound("reviews"))

    host = "reviews.default.svc.cluster.local"
    for match in (f"{{service: {host}}}", "{portNumber: 9080}", f'{{name: "outbound|9080||{host}"}}', "{}"):
        cluster = limited(match)
        assert cluster.connect_timeout.nanos == 500_000_000, match
        assert cluster.connect_timeout.seconds == 0
        assert cluster.eds_cluster_config.service_name
    for match in ("{service: elsewhere}", "{subset: v1}", "{portNumber: 1}"):
        assert not limited(match).connect_timeout.nanos, match


def test_clusters_and_listeners_can_be_added_and_removed() -> None:
    added = insert(
        "ADD",
        "{context: SIDECAR_OUTBOUND}",
        "name: lookaside\ntype: STATIC\nconnect_timeout: 1s\n",
        "CLUSTER",
    )
    mesh = client(envoy_filter(added))
    assert "lookaside" in mesh.listed(TypeUrl.CLUSTER)
    assert mesh.cluster("lookaside").name == "lookaside"
    gone = insert("REMOVE", "{cluster: {service: reviews.default.svc.cluster.local}}", "{}\n", "CLUSTER")
    assert not client(envoy_filter(gone)).exists(TypeUrl.CLUSTER, outbound("reviews"))
    gone = insert("REMOVE", "{listener: {name: outbound-tcp}}", "{}\n", "LISTENER")
    assert not client(envoy_filter(gone)).exists(TypeUrl.LISTENER, "outbound-tcp")


def test_virtual_hosts_and_routes_are_changed_as_they_are_asked_for() -> None:
    host = "reviews.default.svc.cluster.local:9080"
    retry = insert(
        "MERGE",
        f'{{routeConfiguration: {{portNumber: 9080, vhost: {{name: "{host}"}}}}}}',
        "retry_policy: {retry_on: reset}\n",
        "VIRTUAL_HOST",
    )
    assert client(envoy_filter(retry)).virtual_host("9080/reviews").retry_policy.retry_on == "reset"
    route = insert(
        "MERGE",
        "{routeConfiguration: {vhost: {route: {action: ROUTE}}}}",
        "response_headers_to_add: [{header: {key: x-patched, value: yes}}]\n".replace("yes", '"1"'),
        "HTTP_ROUTE",
    )
    found = client(envoy_filter(route)).virtual_host("9080/reviews").routes[0]
    assert [h.header.key for h in found.response_headers_to_add] == ["x-patched"]
    assert found.route.cluster == outbound("reviews")
    before = insert(
        "INSERT_FIRST",
        "",
        "name: maintenance\nmatch: {prefix: /closed}\ndirect_response: {status: 503}\n",
        "HTTP_ROUTE",
    )
    routes = client(envoy_filter(before)).virtual_host("9080/reviews").routes
    assert routes[0].name == "maintenance"


def test_an_extension_config_is_put_where_a_filter_refers_to_it() -> None:
    refers = insert(
        "INSERT_FIRST",
        value='name: shared\nconfig_discovery: {config_source: {ads: {}}, type_urls: ["x"]}\n',
    )
    config = insert("ADD", value=LUA.replace("name: lua", "name: shared"), apply_to="EXTENSION_CONFIG")
    found = manager(client(envoy_filter(refers + config))).http_filters[0]
    assert found.typed_config.Is(lua_pb2.Lua.DESCRIPTOR)
    assert not found.HasField("config_discovery")


def test_what_cannot_be_read_is_a_finding_and_changes_nothing() -> None:
    mesh = client(envoy_filter(insert("INSERT_FIRST", value="name: x\nno_such_field: 1\n")))
    built = mesh.built(TypeUrl.LISTENER, "outbound-http")
    assert names(mesh) == ["on_demand", "router"]
    assert [(f.code, f.field) for f in built.findings] == [("RT0104", "spec.configPatches[0].patch.value")]


def test_a_changed_resource_says_by_which_object() -> None:
    built = client(envoy_filter(insert("INSERT_FIRST"))).built(TypeUrl.LISTENER, "outbound-http")
    assert ("EnvoyFilter/default/f", "spec.configPatches[0]") in [
        (str(p.ref), p.field) for p in built.provenance
    ]


def test_a_change_that_was_not_approved_yet_has_no_effect() -> None:
    made = world(envoy_filter(insert("INSERT_FIRST")))
    snapshot, _ = made.snapshot().with_changes({("patch", "default", "f"): None})
    from retia.translate.translate import build

    mesh = made.client("productpage")
    plain = build(Mesh(snapshot, mesh.proxy).view, Name(TypeUrl.LISTENER, "outbound-http"))
    assert not plain.provenance


def test_envoy_accepts_the_results(tmp_path: Any) -> None:
    mesh = client(envoy_filter(insert("INSERT_BEFORE", ROUTER)))
    assert complaints(mesh.reachable("9080/reviews"), tmp_path) == ""
