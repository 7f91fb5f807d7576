"""BPF object files: the programs and maps that an ELF file holds. Pure; reads what clang wrote, nothing else.

A program is a section with code and the places where it names maps. A map is a variable in section
``.maps``; its definition is in its BTF type, as libbpf has it: a member that points to an array of n
elements means the number n, a pointer to anything else means that type (of a key or value). No other kind
of data is understood (.rodata, .bss, calls between sections): the programs are written to need none.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from retia.node.errors import BadObject

_EM_BPF = 247
_SHT_SYMTAB = 2
_SHT_REL = 9
_SHF_EXECINSTR = 4
_R_BPF_64_64 = 1
_INSTRUCTION_BYTES = 8

_KIND_INT, _KIND_PTR, _KIND_ARRAY, _KIND_STRUCT, _KIND_UNION = 1, 2, 3, 4, 5
_KIND_VAR, _KIND_DATASEC = 14, 15
_MODIFIERS = frozenset((8, 9, 10, 11, 18))
# Bytes after a type's 12 bytes: fixed, and for each of its vlen entries (Documentation/bpf/btf.rst).
_EXTRA = {
    1: (4, 0),
    3: (12, 0),
    4: (0, 12),
    5: (0, 12),
    6: (0, 8),
    13: (0, 8),
    14: (4, 0),
    15: (0, 12),
    17: (4, 0),
    19: (0, 12),
}


@dataclass(frozen=True, slots=True)
class MapDefinition:
    """What a map is to be made as. Sizes in bytes."""

    name: str
    type: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int = 0


@dataclass(frozen=True, slots=True)
class MapUse:
    """The instruction (counted from 0) of a program that is to hold a map's descriptor."""

    instruction: int
    map: str


@dataclass(frozen=True, slots=True)
class ProgramCode:
    """A program as compiled: ``section`` says its type, ``name`` is its C function's."""

    name: str
    section: str
    code: bytes
    uses: tuple[MapUse, ...]


@dataclass(frozen=True, slots=True)
class Field:
    """A member of a C structure. ``offset`` in bytes."""

    name: str
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class ObjectFile:
    programs: tuple[ProgramCode, ...]
    maps: tuple[MapDefinition, ...]


def parse_object(data: bytes) -> ObjectFile:
    """The programs and maps of an object; :class:`BadObject` if it is none that we understand."""
    try:
        elf = _Elf(data)
        return ObjectFile(tuple(_programs(elf)), tuple(_maps(elf)))
    except (struct.error, IndexError, OverflowError, ValueError, RecursionError) as error:
        raise BadObject(f"the BPF object is cut off or damaged: {error}") from error


def parse_struct(data: bytes, name: str) -> tuple[int, tuple[Field, ...]]:
    """Size and fields of C structure ``name``; :class:`BadObject` if the object does not know it."""
    types = _Types(_Elf(data).section(".BTF"))
    for number, kind in enumerate(types.all, 1):
        if kind.kind == _KIND_STRUCT and kind.name == name:
            fields = tuple(Field(m.name, m.offset // 8, types.size(m.type)) for m in types.members(number))
            return kind.size_or_type, fields
    raise BadObject(f"the BPF object has no struct {name}")


@dataclass(frozen=True, slots=True)
class _Section:
    name: str
    type: int
    flags: int
    link: int
    info: int
    data: bytes


class _Elf:
    def __init__(self, data: bytes) -> None:
        if data[:6] != b"\x7fELF\x02\x01":
            raise BadObject("not a little-endian 64-bit ELF file")
        machine = struct.unpack_from("<H", data, 18)[0]
        if machine != _EM_BPF:
            raise BadObject(f"ELF machine is {machine}; a BPF object has {_EM_BPF}")
        self._data = data
        start = struct.unpack_from("<Q", data, 40)[0]
        size, count, names = struct.unpack_from("<HHH", data, 58)
        raw = [struct.unpack_from("<IIQQQQIIQQ", data, start + size * i) for i in range(count)]
        strings = data[raw[names][4] : raw[names][4] + raw[names][5]]
        self.sections = tuple(
            _Section(
                _string(strings, r[0]), r[1], r[2], r[6], r[7], b"" if r[1] == 8 else data[r[4] : r[4] + r[5]]
            )
            for r in raw
        )
        self.symbols = tuple(self._symbols())

    def section(self, name: str) -> bytes:
        for section in self.sections:
            if section.name == name:
                return section.data
        raise BadObject(f"the BPF object has no section {name}; compile it with -g")

    def _symbols(self) -> Iterator[tuple[str, int, int, int]]:
        """Name, section, value, size."""
        for section in self.sections:
            if section.type != _SHT_SYMTAB:
                continue
            strings = self.sections[section.link].data
            for name, _, _, index, value, size in struct.iter_unpack("<IBBHQQ", section.data):
                yield _string(strings, name), index, value, size


def _string(table: bytes, offset: int) -> str:
    return table[offset : table.index(b"\0", offset)].decode() if offset < len(table) else ""


def _programs(elf: _Elf) -> Iterator[ProgramCode]:
    maps_section = next((i for i, s in enumerate(elf.sections) if s.name == ".maps"), -1)
    for index, section in enumerate(elf.sections):
        if not section.flags & _SHF_EXECINSTR or not section.data:
            continue
        if section.name == ".text":
            raise BadObject("the BPF object has functions that are not inlined (.text)")
        functions = [
            name for name, where, value, size in elf.symbols if where == index and size and value == 0
        ]
        if len(functions) != 1:
            raise BadObject(f"section {section.name} must hold exactly one program")
        yield ProgramCode(functions[0], section.name, section.data, tuple(_uses(elf, index, maps_section)))


def _uses(elf: _Elf, index: int, maps_section: int) -> Iterator[MapUse]:
    for section in elf.sections:
        if section.type != _SHT_REL or section.info != index:
            continue
        for offset, info in struct.iter_unpack("<QQ", section.data):
            name, where, _, _ = elf.symbols[info >> 32]
            if info & 0xFFFFFFFF != _R_BPF_64_64 or where != maps_section or offset % _INSTRUCTION_BYTES:
                raise BadObject(
                    f"section {elf.sections[index].name} refers to {name or 'data'}, which is no map"
                )
            yield MapUse(offset // _INSTRUCTION_BYTES, name)


@dataclass(frozen=True, slots=True)
class _Type:
    name: str
    kind: int
    vlen: int
    size_or_type: int
    extra: bytes


@dataclass(frozen=True, slots=True)
class _Member:
    name: str
    type: int
    offset: int


class _Types:
    """BTF: a list of types, numbered from 1."""

    def __init__(self, data: bytes) -> None:
        magic, _, _, header, types_at, types_size, strings_at, strings_size = struct.unpack_from(
            "<HBBIIIII", data
        )
        if magic != 0xEB9F:
            raise BadObject("section .BTF does not start with BTF's magic number")
        self._strings = data[header + strings_at : header + strings_at + strings_size]
        self.all = tuple(self._read(data[header + types_at : header + types_at + types_size]))

    def _read(self, data: bytes) -> Iterator[_Type]:
        at = 0
        while at < len(data):
            name, info, size = struct.unpack_from("<III", data, at)
            kind, vlen = info >> 24 & 31, info & 0xFFFF
            fixed, each = _EXTRA.get(kind, (0, 0))
            length = fixed + each * vlen
            yield _Type(_string(self._strings, name), kind, vlen, size, data[at + 12 : at + 12 + length])
            at += 12 + length

    def get(self, number: int) -> _Type:
        """The type, with typedefs, const and such taken off."""
        found = self.all[number - 1]
        for _ in self.all:
            if found.kind not in _MODIFIERS:
                return found
            found = self.all[found.size_or_type - 1]
        raise BadObject("BTF types go round in a circle")

    def members(self, number: int) -> Iterator[_Member]:
        for name, kind, offset in struct.iter_unpack("<III", self.get(number).extra):
            yield _Member(_string(self._strings, name), kind, offset & 0xFFFFFF)

    def array(self, kind: _Type) -> tuple[int, int]:
        """Element type and length."""
        element, _, length = struct.unpack("<III", kind.extra)
        return element, length

    def size(self, number: int) -> int:
        kind = self.get(number)
        if kind.kind == _KIND_ARRAY:
            element, length = self.array(kind)
            return self.size(element) * length
        return 8 if kind.kind == _KIND_PTR else kind.size_or_type


def _maps(elf: _Elf) -> Iterator[MapDefinition]:
    if not any(s.name == ".maps" for s in elf.sections):
        return
    types = _Types(elf.section(".BTF"))
    section = next((t for t in types.all if t.kind == _KIND_DATASEC and t.name == ".maps"), None)
    if section is None:
        raise BadObject("BTF does not describe section .maps")
    for number, _, _ in struct.iter_unpack("<III", section.extra):
        variable = types.get(number)
        yield _map(types, variable.name, variable.size_or_type)


def _map(types: _Types, name: str, number: int) -> MapDefinition:
    numbers = {"type": 0, "max_entries": 0, "map_flags": 0}
    sizes = {"key": 0, "value": 0}
    for member in types.members(number):
        pointed = types.get(member.type).size_or_type
        if member.name in numbers:
            numbers[member.name] = types.array(types.get(pointed))[1]
        elif member.name in sizes:
            sizes[member.name] = types.size(pointed)
        else:
            raise BadObject(f"map {name} has a member {member.name} that is not understood")
    return MapDefinition(
        name, numbers["type"], sizes["key"], sizes["value"], numbers["max_entries"], numbers["map_flags"]
    )
