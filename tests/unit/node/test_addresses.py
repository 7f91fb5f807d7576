from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retia.node.addresses import (
    MAX_INDEX,
    MAX_WORKLOAD,
    MeshPorts,
    mesh_ports,
    workload_addresses,
)

indexes = st.integers(0, MAX_INDEX)
numbers = st.integers(1, MAX_WORKLOAD)


def test_first_mesh() -> None:
    assert workload_addresses(0, 1).published == "127.64.0.1"
    assert workload_addresses(0, 1).app == "127.65.0.1"
    assert workload_addresses(0, 300).app == "127.65.1.44"
    assert mesh_ports(0) == MeshPorts(control=15012, metrics=15014, gateway=15443)


def test_last_mesh() -> None:
    assert workload_addresses(15, 1).published == "127.94.0.1"
    assert workload_addresses(15, 1).app == "127.95.0.1"
    assert mesh_ports(15).gateway == 16943


@given(st.tuples(indexes, numbers), st.tuples(indexes, numbers))
def test_no_two_workloads_share_an_address(one: tuple[int, int], other: tuple[int, int]) -> None:
    first, second = workload_addresses(*one), workload_addresses(*other)
    shared = {first.published, first.app} & {second.published, second.app}
    assert bool(shared) is (one == other)
    assert all(ipaddress.ip_address(a).is_loopback for a in (first.published, first.app))


def test_meshes_share_no_port() -> None:
    ports = [port for k in range(16) for port in (mesh_ports(k).control, mesh_ports(k).gateway)]
    assert len(set(ports)) == 32


@pytest.mark.parametrize(("index", "number"), [(16, 1), (-1, 1), (0, 0), (0, 65535)])
def test_out_of_range_is_refused(index: int, number: int) -> None:
    with pytest.raises(ValueError, match="must be"):
        workload_addresses(index, number)
