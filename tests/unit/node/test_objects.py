"""Object files: what the package ships is understood, what is damaged is refused with the one error."""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retia.node import loader
from retia.node.errors import BadObject, CaptureUnavailable
from retia.node.objects import MapDefinition, MapUse, ProgramCode, parse_object, parse_struct

OBJECTS = {file.stem: file.read_bytes() for file in sorted(loader.OBJECTS.glob("*.o"))}


def test_the_package_has_its_programs() -> None:
    bundle = loader.read_bundle()
    assert {program.section for program in bundle.programs} == set(loader.KINDS)
    assert all(program.name.startswith("retia_") for program in bundle.programs)
    assert len(bundle.digest) == 32


def test_maps_are_read_from_type_information() -> None:
    maps = {definition.name: definition for definition in loader.read_bundle().maps}
    assert maps["members"] == MapDefinition("members", 1, 8, 20, 16384, 1)
    assert maps["destinations"] == MapDefinition("destinations", 1, 8, 8, 262144, 1)
    assert maps["sockets"].type == 24
    assert maps["sockets"].max_entries == 0


def test_every_map_that_a_program_uses_is_defined() -> None:
    bundle = loader.read_bundle()
    names = {definition.name for definition in bundle.maps}
    assert {use.map for program in bundle.programs for use in program.uses} <= names


def test_relocation_puts_descriptors_in() -> None:
    load = struct.pack("<BBhi", 0x18, 1, 0, 0) + struct.pack("<BBhi", 0, 0, 0, 0)
    program = ProgramCode("p", "cgroup/bind4", load, (MapUse(0, "members"),))
    code = loader.relocate(program, {"members": 42})
    assert struct.unpack_from("<BBhi", code) == (0x18, 1 | 1 << 4, 0, 42)
    with pytest.raises(BadObject, match="which no object defines"):
        loader.relocate(program, {})
    with pytest.raises(BadObject, match="loads none"):
        loader.relocate(ProgramCode("p", "s", bytes(16), (MapUse(0, "members"),)), {"members": 1})


def test_objects_that_disagree_about_a_map_are_refused() -> None:
    one = MapDefinition("m", 1, 4, 4, 10)
    with pytest.raises(BadObject, match="define map m differently"):
        loader._merge([one, MapDefinition("m", 1, 4, 4, 11)])


def test_an_unknown_section_is_refused() -> None:
    with pytest.raises(BadObject, match="not known"):
        loader.kind_of(ProgramCode("p", "xdp", b"", ()))


def test_a_package_without_objects_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(CaptureUnavailable, match=r"hatch_build\.py"):
        loader.read_bundle(tmp_path)


@pytest.mark.parametrize("data", [b"", b"\x7fELF", b"\x7fELF\x02\x01" + bytes(100), b"no object at all"])
def test_what_is_no_object_is_refused(data: bytes) -> None:
    with pytest.raises(BadObject):
        parse_object(data)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(OBJECTS)), st.data())
def test_any_damage_parses_or_gives_the_one_error(name: str, data: st.DataObject) -> None:
    whole = OBJECTS[name]
    if data.draw(st.booleans()):
        damaged = whole[: data.draw(st.integers(0, len(whole) - 1))]
    else:
        position = data.draw(st.integers(0, len(whole) - 5))
        damaged = whole[:position] + data.draw(st.binary(min_size=4, max_size=4)) + whole[position + 4 :]
    with contextlib.suppress(BadObject):
        parse_object(damaged)


def test_unknown_structures_are_said_to_be() -> None:
    with pytest.raises(BadObject, match="no struct nobody"):
        parse_struct(OBJECTS["guard"], "nobody")
