"""The client against the real application on a real unix socket."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from retia.api import schema
from retia.api.client import Client, ClientError
from tests.unit.api.fakes import FakeBackend, serving

VS = "kind: VirtualService\nmetadata: {name: reviews}\nspec: {}\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "api.sock"


@pytest.fixture
def client(path: Path) -> Iterator[Client]:
    with serving(FakeBackend(), path), Client(path) as client:
        yield client


def test_objects_make_the_round_trip(client: Client) -> None:
    result = client.apply([schema.Document(path="a.yaml", text=VS)])
    assert [item.action for item in result.items] == ["created"]
    assert client.get_object("VirtualService", "default", "reviews").manifest["spec"] == {}
    assert [o.name for o in client.list_objects("vs")] == ["reviews"]
    assert client.delete_object("VirtualService", "default", "reviews").deleted
    assert client.list_objects() == []


def test_names_with_slashes_stay_one_part_of_the_path(client: Client) -> None:
    with pytest.raises(ClientError) as refused:
        client.get_service("a/b?c")
    assert refused.value.code == "not_found"


def test_a_refusal_carries_the_servers_words(client: Client) -> None:
    with pytest.raises(ClientError) as refused:
        client.get_object("VirtualService", "default", "none")
    assert str(refused.value) == "there is no VirtualService default/none"


def test_proxy_ids_with_a_slash_are_asked_for_whole(client: Client) -> None:
    assert client.proxy_query("default/web-0", "config_dump").proxy == "default/web-0"


def test_no_socket_means_no_controller_and_what_to_do(path: Path) -> None:
    with pytest.raises(ClientError) as refused, Client(path) as client:
        client.status()
    assert refused.value.code == "no_controller"
    assert str(refused.value) == (
        f"no controller is running for this RETIA_HOME: there is no socket {path}; "
        "start a mesh with 'retia up' or 'retia controller'"
    )


def test_a_socket_that_nobody_listens_on_is_told_apart(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    with pytest.raises(ClientError) as refused, Client(path) as client:
        client.status()
    assert refused.value.code == "no_controller"
    assert f"no controller answers on {path}" in str(refused.value)


def test_a_path_too_long_for_a_socket_is_said(tmp_path: Path) -> None:
    with pytest.raises(ClientError, match="set RETIA_HOME to a shorter path"):
        Client(tmp_path / ("x" * 120))
