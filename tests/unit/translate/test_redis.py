"""RedisRoute: where commands go by their keys, asked of the generated listener."""

from __future__ import annotations

from typing import Any

from envoy.extensions.filters.network.redis_proxy.v3 import redis_proxy_pb2

from retia.model.resource import TypeUrl
from tests.support.validating import complaints
from tests.support.world import Mesh, World, outbound

ROUTE = """\
kind: RedisRoute
metadata: {name: cache}
spec:
  host: cache
  timeout: 2s
  caseInsensitive: true
  routes:
  - prefix: "session:"
    removePrefix: true
    destination: {host: sessions}
    readFrom: {host: replicas}
    mirrors:
    - {destination: {host: shadow}, percentage: 25, excludeReads: true}
"""


def client(*texts: str) -> Mesh:
    made = World().service("visitor", 9090)
    for name in ("cache", "sessions", "replicas", "shadow"):
        made.service(name, 6379, "tcp")
    for text in texts:
        made.apply(text)
    return made.client("visitor")


def dial(mesh: Mesh) -> str:
    found = mesh.snapshot.get(("service", "cache.default.svc.cluster.local"))
    return f"tcp|{found.vip}:6379"


def proxy(mesh: Mesh) -> Any:
    cluster = mesh.cluster(dial(mesh))
    endpoint = cluster.load_assignment.endpoints[0].lb_endpoints[0].endpoint.address
    listener = mesh.listener(endpoint.envoy_internal_address.server_listener_name)
    message = redis_proxy_pb2.RedisProxy()
    listener.filter_chains[0].filters[0].typed_config.Unpack(message)
    return message


def test_commands_go_by_their_keys() -> None:
    found = proxy(client(ROUTE))
    (route,) = found.prefix_routes.routes
    assert (route.prefix, route.remove_prefix, route.cluster) == (
        "session:", True, outbound("sessions", port=6379)
    )  # fmt: skip
    assert route.read_command_policy.cluster == outbound("replicas", port=6379)
    (mirror,) = route.request_mirror_policy
    assert (mirror.cluster, mirror.exclude_read_commands) == (outbound("shadow", port=6379), True)
    assert mirror.runtime_fraction.default_value.numerator == 250_000
    assert found.settings.op_timeout.seconds == 2
    assert found.prefix_routes.case_insensitive


def test_keys_that_no_route_has_go_to_the_service_that_was_called() -> None:
    assert proxy(client(ROUTE)).prefix_routes.catch_all_route.cluster == outbound("cache", port=6379)


def test_a_route_without_a_prefix_takes_all_other_keys() -> None:
    other = ROUTE.replace('prefix: "session:"\n    removePrefix: true\n    ', "")
    assert proxy(client(other)).prefix_routes.catch_all_route.cluster == outbound("sessions", port=6379)


def test_without_an_object_nobody_reads_the_connection() -> None:
    mesh = client()
    assert not mesh.cluster(dial(mesh)).HasField("load_assignment")


def test_a_younger_object_for_the_same_service_is_reported() -> None:
    mesh = client(ROUTE, ROUTE.replace("name: cache", "name: late"))
    built = mesh.built(TypeUrl.CLUSTER, dial(mesh))
    assert [(f.code, str(f.ref)) for f in built.findings] == [("RT0304", "RedisRoute/default/late")]


def test_envoy_accepts_the_results(tmp_path: Any) -> None:
    from retia.model.resource import Name

    mesh = client(ROUTE)
    names = [Name(TypeUrl.CLUSTER, dial(mesh))]
    found = {}
    while names:
        name = names.pop()
        found[name] = mesh.get(name)
        names += [ref for ref in found[name].refs if ref not in found]
    assert complaints(sorted(found.items(), key=lambda item: item[0].name), tmp_path) == ""
