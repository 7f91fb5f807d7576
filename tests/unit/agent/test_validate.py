"""Asking Envoy about resources before any proxy gets them."""

from __future__ import annotations

import pytest
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.route.v3 import route_components_pb2
from google.protobuf.message import Message

from retia.agent import envoy
from retia.agent.validate import complaint
from retia.model.resource import Built, TypeUrl
from retia.xds.wire import encode


def wire(kind: TypeUrl, message: Message) -> bytes:
    return encode(kind, Built("x", message.SerializeToString())).wire


@pytest.mark.parametrize(("prefix", "says"), [("/", ""), ("", "value length must be at least 1")])
async def test_routes_are_checked_by_envoy_itself(prefix: str, says: str) -> None:
    host = route_components_pb2.VirtualHost(name="9080/reviews", domains=["reviews"])
    route = host.routes.add()
    route.match.prefix = "/"
    if prefix:
        route.route.prefix_rewrite = prefix
        route.route.cluster = "anything"
    else:
        route.route.cluster_header = ""
    found = await complaint(envoy.find_path(), [wire(TypeUrl.VIRTUAL_HOST, host)])
    assert says in found if says else found == ""


async def test_clusters_are_checked_as_they_are() -> None:
    cluster = cluster_pb2.Cluster(name="c", lb_policy=cluster_pb2.Cluster.MAGLEV)
    cluster.maglev_lb_config.table_size.value = 10
    found = await complaint(envoy.find_path(), [wire(TypeUrl.CLUSTER, cluster)])
    assert "prime" in found


async def test_what_is_no_message_is_a_complaint() -> None:
    assert "messages" in await complaint(envoy.find_path(), [b"\xff\xff\xff"])
