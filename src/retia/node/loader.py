"""From object files to programs in the kernel.

Reading objects depends on nothing but their bytes; what depends on the kernel happens here. Objects share
maps by name: a map that is handed in (because it is pinned) is used as it is, the others are made.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from retia.node.bpf import Handle, Map, MapShape, lift_memory_limit, load_program
from retia.node.errors import BadObject, CaptureUnavailable
from retia.node.objects import MapDefinition, ObjectFile, ProgramCode, parse_object

_PSEUDO_MAP_FD = 1
OBJECTS = Path(__file__).parent / "_bpf"


class Place(IntEnum):
    """Which cgroup of a mesh's branch a program is attached to."""

    ROOT = 0
    WORKLOADS = 1
    PROXIES = 2


@dataclass(frozen=True, slots=True)
class Kind:
    """What a section's name says: bpf_prog_type, bpf_attach_type (UAPI) and where it is attached."""

    program_type: int
    attach_type: int
    place: Place


KINDS: dict[str, Kind] = {
    "cgroup_skb/ingress": Kind(8, 0, Place.ROOT),
    "cgroup/sock_release": Kind(9, 34, Place.WORKLOADS),
    "sockops": Kind(13, 3, Place.WORKLOADS),
    "cgroup/bind4": Kind(18, 8, Place.WORKLOADS),
    "cgroup/bind6": Kind(18, 9, Place.WORKLOADS),
    "cgroup/connect4": Kind(18, 10, Place.WORKLOADS),
    "cgroup/connect6": Kind(18, 11, Place.WORKLOADS),
    "cgroup/post_bind6": Kind(9, 13, Place.WORKLOADS),
    "cgroup/sendmsg4": Kind(18, 14, Place.WORKLOADS),
    "cgroup/recvmsg4": Kind(18, 19, Place.WORKLOADS),
    "cgroup/recvmsg6": Kind(18, 20, Place.WORKLOADS),
    "cgroup/getsockopt": Kind(25, 21, Place.PROXIES),
    "cgroup/setsockopt": Kind(25, 22, Place.WORKLOADS),
    "cgroup/getpeername4": Kind(18, 29, Place.WORKLOADS),
    "cgroup/getpeername6": Kind(18, 30, Place.WORKLOADS),
    "cgroup/getsockname4": Kind(18, 31, Place.WORKLOADS),
    "cgroup/getsockname6": Kind(18, 32, Place.WORKLOADS),
}


@dataclass(frozen=True, slots=True)
class Bundle:
    """All objects of the package. ``digest`` (32 bytes) tells one build from another."""

    programs: tuple[ProgramCode, ...]
    maps: tuple[MapDefinition, ...]
    digest: bytes


def read_bundle(folder: Path = OBJECTS) -> Bundle:
    """The package's own objects; CaptureUnavailable if the package was built without them."""
    files = sorted(folder.glob("*.o"))
    if not files:
        raise CaptureUnavailable(
            "programs", f"{folder} holds no BPF objects: install the package with pip, or run hatch_build.py"
        )
    digest = hashlib.sha256()
    objects: list[ObjectFile] = []
    for file in files:
        data = file.read_bytes()
        digest.update(data)
        objects.append(parse_object(data))
    maps = _merge(definition for found in objects for definition in found.maps)
    return Bundle(tuple(program for found in objects for program in found.programs), maps, digest.digest())


def _merge(definitions: Iterable[MapDefinition]) -> tuple[MapDefinition, ...]:
    merged: dict[str, MapDefinition] = {}
    for definition in definitions:
        if merged.setdefault(definition.name, definition) != definition:
            raise BadObject(f"two objects define map {definition.name} differently")
    return tuple(merged[name] for name in sorted(merged))


def shape_of(definition: MapDefinition) -> MapShape:
    """What a map made from ``definition`` looks like."""
    return MapShape(
        definition.type, definition.key_size, definition.value_size, definition.max_entries, definition.flags
    )


def create_maps(bundle: Bundle, have: Mapping[str, Map] | None = None) -> dict[str, Map]:
    """All maps of the bundle by name: those of ``have`` whose shape fits, new ones otherwise."""
    lift_memory_limit()
    maps: dict[str, Map] = {}
    for definition in bundle.maps:
        known = have.get(definition.name) if have else None
        fits = known is not None and known.shape == shape_of(definition)
        maps[definition.name] = known if known and fits else Map.create(definition.name, shape_of(definition))
    return maps


def load_programs(bundle: Bundle, maps: Mapping[str, Map]) -> dict[str, Handle]:
    """All programs of the bundle, verified and in the kernel, by their section's name."""
    loaded: dict[str, Handle] = {}
    for program in bundle.programs:
        kind = kind_of(program)
        code = relocate(program, {name: found.fileno() for name, found in maps.items()})
        loaded[program.section] = load_program(program.name, kind.program_type, kind.attach_type, code)
    return loaded


def kind_of(program: ProgramCode) -> Kind:
    """What the program's section means; BadObject for a section that is not known."""
    kind = KINDS.get(program.section)
    if kind is None:
        raise BadObject(f"program {program.name} is in section {program.section}, which is not known")
    return kind


def relocate(program: ProgramCode, descriptors: Mapping[str, int]) -> bytes:
    """The program's code with the maps' descriptors in place. Pure."""
    code = bytearray(program.code)
    for use in program.uses:
        if use.map not in descriptors:
            raise BadObject(f"program {program.name} uses map {use.map}, which no object defines")
        at = use.instruction * 8
        if code[at] != 0x18:  # BPF_LD | BPF_DW | BPF_IMM
            raise BadObject(
                f"program {program.name} refers to map {use.map} in an instruction that loads none"
            )
        code[at + 1] = code[at + 1] & 0x0F | _PSEUDO_MAP_FD << 4
        struct.pack_into("<i", code, at + 4, descriptors[use.map])
    return bytes(code)
