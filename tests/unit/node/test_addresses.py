from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retia.node.addresses import (
    MAX_INDEX,
    MAX_WORKLOAD,
    MeshPorts,
    app_network,
    mesh_ports,
    published_network,
    workload_addresses,
    workload_number,
)

indexes = st.integers(0, MAX_INDEX)
numbers = st.integers(1, MAX_WORKLOAD)


def test_first_mesh() -> None:
    assert workload_addresses(0, 1).published == "127.64.0.1"
    assert workload_addresses(0, 1).app == "127.65.0.1"
    assert workload_addresses(0, 300).app == "127.65.1.44"
    assert mesh_ports(0) == MeshPorts(control=15012, metrics=15014, agent=15020, gateway=15443)


def test_last_mesh() -> None:
    assert published_network(15) == "127.94.0.0/16"
    assert app_network(15) == "127.95.0.0/16"
    assert mesh_ports(15).gateway == 16943


@given(indexes, numbers)
def test_addresses_lie_in_their_networks_and_lead_back(index: int, number: int) -> None:
    addresses = workload_addresses(index, number)
    assert ipaddress.ip_address(addresses.published) in ipaddress.ip_network(published_network(index))
    assert ipaddress.ip_address(addresses.app) in ipaddress.ip_network(app_network(index))
    assert workload_number(index, addresses.published) == number
    assert workload_number(index, addresses.app) == number


def test_meshes_share_nothing() -> None:
    networks = [name for k in range(16) for name in (published_network(k), app_network(k))]
    assert len(set(networks)) == 32
    ports = [port for k in range(16) for port in (mesh_ports(k).control, mesh_ports(k).gateway)]
    assert len(set(ports)) == 32


@pytest.mark.parametrize(
    "text", ["", "127.64.0", "127.64.0.0", "127.66.0.1", "10.0.0.1", "127.64.0.256", "::1", "a.b.c.d"]
)
def test_other_addresses_are_nobodys(text: str) -> None:
    assert workload_number(0, text) is None


@pytest.mark.parametrize(("index", "number"), [(16, 1), (-1, 1), (0, 0), (0, 65535)])
def test_out_of_range_is_refused(index: int, number: int) -> None:
    with pytest.raises(ValueError, match="must be"):
        workload_addresses(index, number)
