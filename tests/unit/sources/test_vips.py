"""Virtual addresses: stable, in order, reused last."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retia.model.ids import Host
from retia.sources.errors import Exhausted
from retia.sources.memory import MemoryStore
from retia.sources.sqlite import SqliteStore
from retia.sources.vips import Vips

A, B, C, D = (Host(f"{n}.default.svc.cluster.local") for n in "abcd")
SMALL = ipaddress.IPv4Network("240.240.0.0/29")  # six addresses


def test_addresses_are_given_in_order_of_names() -> None:
    vips = Vips(MemoryStore())
    assert vips.allocate([B, A]) == {A: "240.240.0.1", B: "240.240.0.2"}
    assert vips.allocate([C, A]) == {A: "240.240.0.1", C: "240.240.0.3"}


def test_they_survive_a_restart(tmp_path: Path) -> None:
    with SqliteStore(tmp_path / "store.sqlite") as store:
        Vips(store).allocate([A, B])
    with SqliteStore(tmp_path / "store.sqlite") as store:
        vips = Vips(store)
        assert vips.addresses() == {A: "240.240.0.1", B: "240.240.0.2"}
        assert vips.allocate([C]) == {C: "240.240.0.3"}


def test_a_name_that_comes_back_has_its_old_address() -> None:
    vips = Vips(MemoryStore())
    vips.allocate([A, B])
    vips.release([A, C])
    assert vips.addresses() == {B: "240.240.0.2"}
    assert vips.allocate([C])[C] == "240.240.0.3"
    assert vips.allocate([A])[A] == "240.240.0.1"
    assert vips.addresses().keys() == {A, B, C}


def test_addresses_are_reused_only_after_exhaustion_the_longest_free_first() -> None:
    store = MemoryStore()
    vips = Vips(store, SMALL)
    hosts = [Host(f"h{n}") for n in range(6)]
    vips.allocate(hosts)
    vips.release([hosts[4]])
    vips.release([hosts[2]])
    assert vips.allocate([A]) == {A: "240.240.0.5"}
    again = Vips(store, SMALL)
    assert again.allocate([B]) == {B: "240.240.0.3"}
    with pytest.raises(Exhausted, match="all 6 virtual addresses are in use"):
        again.allocate([hosts[2]])
    assert hosts[2] not in again.addresses()


def test_exhaustion_gives_nobody_anything() -> None:
    vips = Vips(MemoryStore(), SMALL)
    with pytest.raises(Exhausted):
        vips.allocate([Host(f"h{n}") for n in range(7)])
    assert vips.addresses() == {}
    assert vips.allocate([A]) == {A: "240.240.0.1"}


def test_two_controllers_never_give_one_address_twice() -> None:
    store = MemoryStore()
    one, other = Vips(store), Vips(store)
    one.allocate([A])
    assert other.allocate([B]) == {B: "240.240.0.2"}
    assert one.allocate([B, C]) == {B: "240.240.0.2", C: "240.240.0.3"}


def test_what_is_known_is_not_written_again() -> None:
    store = MemoryStore()
    vips = Vips(store)
    vips.allocate([A])
    records = store.records("vips")
    vips.allocate([A])
    vips.release([B])
    assert store.records("vips") == records


@given(st.lists(st.tuples(st.booleans(), st.sets(st.sampled_from([A, B, C, D]), max_size=4)), max_size=12))
def test_no_two_names_share_an_address(steps: list[tuple[bool, set[Host]]]) -> None:
    store = MemoryStore()
    network = ipaddress.IPv4Network("240.240.0.0/29")
    vips = Vips(store, network)
    for allocate, hosts in steps:
        if allocate:
            given_now = vips.allocate(hosts)
            assert given_now.keys() == hosts
        else:
            vips.release(hosts)
        in_use = vips.addresses()
        assert len(set(in_use.values())) == len(in_use)
        assert Vips(store, network).addresses() == in_use
