from __future__ import annotations

import pytest
from envoy.config.cluster.v3 import cluster_pb2
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from retia.model.resource import Built, TypeUrl
from retia.xds.messages import Response
from retia.xds.wire import absent, aliased, encode, parse_request, response_bytes


def test_a_resource_is_what_envoy_reads() -> None:
    message = cluster_pb2.Cluster(name="a")
    resource = encode(TypeUrl.CLUSTER, Built("a", message.SerializeToString(), ("b", "c")))
    read = discovery_pb2.Resource.FromString(resource.wire)
    assert (read.name, list(read.aliases), read.version) == ("a", ["b", "c"], resource.version)
    inside = cluster_pb2.Cluster()
    assert read.resource.Unpack(inside)
    assert inside == message


def test_a_name_that_does_not_exist_has_no_message_and_is_its_own_alias() -> None:
    read = discovery_pb2.Resource.FromString(absent(TypeUrl.VIRTUAL_HOST, "80/a").wire)
    assert not read.HasField("resource")
    assert (read.name, list(read.aliases)) == ("80/a", ["80/a"])
    assert not encode(TypeUrl.VIRTUAL_HOST, Built("80/a", None)).exists


def test_more_aliases_leave_the_version_alone() -> None:
    resource = encode(TypeUrl.VIRTUAL_HOST, Built("80/a", b"", ("80/b",)))
    more = aliased(resource, ("80/b", "80/c"))
    assert list(discovery_pb2.Resource.FromString(more.wire).aliases) == ["80/b", "80/c"]
    assert more.version == resource.version
    assert aliased(resource, ("80/b",)) is resource


def test_the_version_is_the_content() -> None:
    def version(message: bytes, *aliases: str) -> str:
        return encode(TypeUrl.CLUSTER, Built("a", message, aliases)).version

    assert version(b"1") == version(b"1")
    assert len({version(b"1"), version(b"2"), version(b"1", "b"), version(b"1", "c")}) == 4


@given(
    names=st.lists(st.text(min_size=1, max_size=200), max_size=5, unique=True),
    removed=st.lists(st.text(max_size=200), max_size=5),
    message=st.binary(max_size=70_000),
)
def test_a_response_is_what_envoy_reads(names: list[str], removed: list[str], message: bytes) -> None:
    resources = tuple(encode(TypeUrl.ENDPOINTS, Built(name, message)) for name in names)
    data = response_bytes(Response(TypeUrl.ENDPOINTS, resources, tuple(removed), "7f"))
    read = discovery_pb2.DeltaDiscoveryResponse.FromString(data)
    assert [r.name for r in read.resources] == names
    assert all(r.resource.value == message for r in read.resources)
    assert (list(read.removed_resources), read.nonce, read.type_url) == (removed, "7f", TypeUrl.ENDPOINTS)


def test_a_request_is_read_whole() -> None:
    message = discovery_pb2.DeltaDiscoveryRequest(
        type_url=TypeUrl.CLUSTER,
        resource_names_subscribe=["a"],
        resource_names_unsubscribe=["b"],
        initial_resource_versions={"c": "1"},
        response_nonce="5",
    )
    message.node.id = "me"
    message.error_detail.code = 13
    request = parse_request(message.SerializeToString())
    assert request.type is TypeUrl.CLUSTER
    assert (request.subscribe, request.unsubscribe) == (("a",), ("b",))
    assert (dict(request.initial_versions), request.nonce, request.node_id) == ({"c": "1"}, "5", "me")
    assert request.error == "refused with code 13"


def test_a_type_that_is_not_served_is_none() -> None:
    message = discovery_pb2.DeltaDiscoveryRequest(type_url="type.googleapis.com/x")
    assert parse_request(message.SerializeToString()).type is None


@given(st.binary(max_size=300))
def test_any_bytes_parse_or_give_the_one_error(data: bytes) -> None:
    try:
        parse_request(data)
    except DecodeError:
        return


def test_no_bytes_are_an_empty_request() -> None:
    assert parse_request(b"").subscribe == ()
    with pytest.raises(DecodeError):
        parse_request(b"\xff")
