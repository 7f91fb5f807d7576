"""The structures shared with the programs: both sides agree on every size and offset."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retia.model.mesh import Protocol
from retia.node import layout, loader
from retia.node.errors import BadObject
from retia.node.layout import Listener, Member, MemberFlag, Role
from retia.node.objects import Field, parse_struct

OBJECTS = [file.read_bytes() for file in sorted(loader.OBJECTS.glob("*.o"))]
addresses = st.ip_addresses(v=4).map(str)
ports = st.integers(0, 65535)


def compiled(name: str) -> list[tuple[int, tuple[Field, ...]]]:
    found = []
    for data in OBJECTS:
        try:
            found.append(parse_struct(data, name))
        except BadObject:
            continue
    return found


@pytest.mark.parametrize("name", sorted(layout.STRUCTS))
def test_sizes_and_offsets_agree(name: str) -> None:
    offset, fields = 0, []
    for field, code in layout.STRUCTS[name]:
        size = struct.calcsize("=" + code)
        fields.append(Field(field, offset, size))
        offset += size
    found = compiled(name)
    assert found, f"no object knows struct {name}"
    assert all(seen == (offset, tuple(fields)) for seen in found)


def test_map_sizes_are_those_of_the_structures() -> None:
    maps = {definition.name: definition for definition in loader.read_bundle().maps}
    assert maps["members"].value_size == layout.MEMBER.size
    assert maps["destinations"].key_size == maps["open_ports"].key_size == layout.ADDRESS_PORT.size
    assert maps["destinations"].value_size == layout.DESTINATION.size
    assert maps["grants"].key_size == layout.GRANT.size
    assert maps["settings"].value_size == layout.SETTINGS.size


@given(
    st.sampled_from(Role),
    st.sampled_from([MemberFlag.NONE, MemberFlag.FAIL_OPEN]),
    addresses,
    st.tuples(ports, ports, ports, ports),
)
def test_members_come_back(
    role: Role, flags: MemberFlag, address: str, numbers: tuple[int, int, int, int]
) -> None:
    member = Member(role, flags, address, *numbers)
    assert Member.unpack(member.pack()) == member


@given(addresses, ports)
def test_address_and_port_come_back(address: str, port: int) -> None:
    assert layout.unpack_address_port(layout.pack_address_port(address, port)) == (address, port)


@given(st.integers(0, 2**64 - 1), addresses)
def test_grants_come_back(proxy: int, address: str) -> None:
    assert layout.unpack_grant(layout.pack_grant(proxy, address)) == (proxy, address)


def test_network_order() -> None:
    assert layout.pack_address_port("127.65.0.1", 80) == bytes((127, 65, 0, 1, 0, 80, 0, 0))


@pytest.mark.parametrize(
    ("protocol", "listener"),
    [
        (Protocol.HTTP, Listener.HTTP),
        (Protocol.HTTP2, Listener.HTTP),
        (Protocol.GRPC, Listener.HTTP),
        (Protocol.AUTO, Listener.AUTO),
        (Protocol.TCP, Listener.TCP),
        (Protocol.TLS, Listener.TCP),
    ],
)
def test_protocols_have_listeners(protocol: Protocol, listener: Listener) -> None:
    assert layout.listener_of(protocol) is listener
    assert layout.DESTINATION.unpack(layout.pack_destination(protocol))[2] == listener


@pytest.mark.parametrize(
    ("address", "port"), [("::1", 80), ("web", 80), ("127.0.0.1", 65536), ("127.0.0.1", -1)]
)
def test_nonsense_is_refused(address: str, port: int) -> None:
    with pytest.raises(ValueError, match=r"not an IPv4 address|must be 0 to 65535"):
        layout.pack_address_port(address, port)
