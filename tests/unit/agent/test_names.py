"""The table of names, and the capture map made of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from retia._generated import agent_pb2 as pb
from retia.agent.capture import destinations
from retia.agent.names import Entry, NameTable
from retia.agent.state import State
from retia.model.mesh import Protocol


def message(revision: int, *hosts: str, full: bool = False, removed: tuple[str, ...] = ()) -> pb.Names:
    made = pb.Names(revision=revision, full=full, removed=removed, epoch="e")
    for number, host in enumerate(hosts):
        entry = made.entries.add(host=host, vip=f"240.240.0.{number + 1}", endpoints=["127.64.0.1:80"])
        entry.ports.add(number=80, protocol="http")
    return made


@pytest.fixture
def state(tmp_path: Path) -> State:
    return State(tmp_path / "state.sqlite")


async def test_the_table_survives(state: State, tmp_path: Path) -> None:
    table = NameTable(state)
    table.apply(message(7, "a.default.svc.cluster.local", "b.default.svc.cluster.local", full=True))
    table.apply(message(8, removed=("b.default.svc.cluster.local",)))
    state.write_now()
    again = NameTable(State(tmp_path / "state.sqlite"))
    again.load()
    assert [e.host for e in again.entries()] == ["a.default.svc.cluster.local"]
    assert (again.revision, again.epoch) == (8, "e")


async def test_a_whole_table_in_parts_takes_nothing_away_meanwhile(state: State) -> None:
    table = NameTable(state)
    table.apply(message(1, "a", "b", "gone", full=True))
    table.apply(message(2, "a", full=True))
    assert {e.host for e in table.entries()} == {"a", "b", "gone"}
    table.apply(message(2, "b"))
    table.sweep()
    assert {e.host for e in table.entries()} == {"a", "b"}


@pytest.mark.parametrize(
    ("written", "full"),
    [
        ("reviews", "reviews.shop.svc.cluster.local"),
        ("reviews.default", "reviews.default.svc.cluster.local"),
        ("reviews.default.svc", "reviews.default.svc.cluster.local"),
        ("reviews.default.svc.cluster.local.", "reviews.default.svc.cluster.local"),
        ("api.example.com", "api.example.com"),
    ],
)
def test_upstreams_are_written_in_any_spelling(state: State, written: str, full: str) -> None:
    assert NameTable(state).full_host(written, "shop") == full


def test_a_known_host_wins_over_a_spelling(state: State) -> None:
    table = NameTable(state)
    table._insert(Entry("example.com", "240.240.0.9", ((80, "http"),)))
    assert table.full_host("example.com", "shop") == "example.com"


def entry(vip: str, ports: dict[int, str], *endpoints: str) -> Entry:
    return Entry("h", vip, tuple(ports.items()), endpoints)


def test_the_capture_map() -> None:
    found = destinations(
        [
            entry("240.240.0.1", {80: "http", 5432: "tcp"}, "127.64.0.1:80", "127.64.0.1:5432"),
            entry("240.240.0.2", {80: "grpc"}, "127.64.0.2:8080", "fd00::1:80", "host:80", "127.64.0.1:80"),
            entry("", {80: "new-fangled"}, "10.0.0.1:80"),
        ]
    )
    assert found == {
        ("240.240.0.1", 80): Protocol.HTTP,
        ("240.240.0.1", 5432): Protocol.TCP,
        ("127.64.0.1", 80): Protocol.AUTO,
        ("127.64.0.1", 5432): Protocol.TCP,
        ("240.240.0.2", 80): Protocol.GRPC,
        ("127.64.0.2", 8080): Protocol.GRPC,
        ("10.0.0.1", 80): Protocol.AUTO,
    }
