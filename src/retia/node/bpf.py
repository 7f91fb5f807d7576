"""The bpf(2) system call: maps, programs, links and pins, by ctypes and with no library beside libc.

Every function takes and gives plain descriptors wrapped in :class:`Handle`, which closes itself. What the
kernel refuses is a :class:`~retia.node.errors.BpfError` with its errno. Commands and attribute layouts are
UAPI (``linux/bpf.h``, union bpf_attr).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import resource
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from retia.node.errors import BpfError, CaptureUnavailable

_NUMBERS = {"x86_64": 321, "aarch64": 280, "riscv64": 280}
_ATTR_BYTES = 144
_LOG_BYTES = 1 << 20
_BATCH = 4096

_T = TypeVar("_T")


class Command(IntEnum):
    MAP_CREATE = 0
    MAP_LOOKUP = 1
    MAP_UPDATE = 2
    MAP_DELETE = 3
    PROG_LOAD = 5
    OBJ_PIN = 6
    OBJ_GET = 7
    OBJ_INFO = 15
    BTF_LOAD = 18
    MAP_LOOKUP_BATCH = 24
    MAP_UPDATE_BATCH = 26
    MAP_DELETE_BATCH = 27
    LINK_CREATE = 28
    LINK_UPDATE = 29


MAP_TYPE_SK_STORAGE = 24


class Handle:
    """A descriptor of a kernel object; closed when it is let go of, at the latest."""

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        """Close; again is harmless."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        with contextlib.suppress(OSError):
            self.close()


def _syscall_number() -> int:
    machine = platform.machine()
    number = _NUMBERS.get(machine)
    if number is None:
        raise CaptureUnavailable(
            "bpf", f"machine {machine} is not known; known are {', '.join(sorted(_NUMBERS))}"
        )
    return number


_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def _call(command: Command, attr: bytes, what: str) -> tuple[int, bytes]:
    """The call's result and the attributes as the kernel left them."""
    buffer = ctypes.create_string_buffer(attr.ljust(_ATTR_BYTES, b"\0"), _ATTR_BYTES)
    number = ctypes.c_long(_syscall_number())
    for _ in range(100):
        result = _libc.syscall(
            number, ctypes.c_long(command), ctypes.byref(buffer), ctypes.c_ulong(_ATTR_BYTES)
        )
        if result >= 0:
            return result, buffer.raw
        if ctypes.get_errno() not in (errno.EINTR, errno.EAGAIN):
            break
    raise BpfError(what, ctypes.get_errno())


def _address(buffer: ctypes.Array[ctypes.c_char]) -> int:
    return ctypes.addressof(buffer)


def _buffer(data: bytes) -> ctypes.Array[ctypes.c_char]:
    return ctypes.create_string_buffer(data, max(len(data), 1))


def _name(text: str) -> bytes:
    return text.encode()[:15].ljust(16, b"\0")


def lift_memory_limit() -> None:
    """Kernels before 5.11 count maps against RLIMIT_MEMLOCK: take the limit off where that is allowed."""
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


@dataclass(frozen=True, slots=True)
class MapShape:
    """What a map is, as the kernel says; two maps of one shape can stand for one another."""

    type: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int


class Map:
    """A map in the kernel. Keys and values are bytes of exactly its sizes."""

    __slots__ = ("_handle", "name", "shape")

    def __init__(self, handle: Handle, name: str, shape: MapShape) -> None:
        self._handle = handle
        self.name = name
        self.shape = shape

    @classmethod
    def create(cls, name: str, shape: MapShape) -> Self:
        """A new, empty map."""
        storage = shape.type == MAP_TYPE_SK_STORAGE
        types = _load_storage_types(shape.value_size) if storage else None
        attr = struct.pack(
            "=7I16s4I",
            shape.type,
            shape.key_size,
            shape.value_size,
            shape.max_entries,
            shape.flags,
            0,
            0,
            _name(name),
            0,
            types.fileno() if types else 0,
            1 if types else 0,
            2 if types else 0,
        )
        fd, _ = _call(Command.MAP_CREATE, attr, f"creating BPF map {name}")
        return cls(Handle(fd), name, shape)

    @classmethod
    def pinned(cls, path: Path) -> Self | None:
        """The map pinned at ``path``; None if there is none."""
        handle = open_pin(path)
        if handle is None:
            return None
        info = object_info(handle, 24)
        kind, _, key, value, entries, flags = struct.unpack_from("=6I", info)
        return cls(handle, path.name, MapShape(kind, key, value, entries, flags))

    def fileno(self) -> int:
        return self._handle.fileno()

    def close(self) -> None:
        self._handle.close()

    def pin(self, path: Path) -> None:
        pin(self._handle.fileno(), path)

    def get(self, key: bytes) -> bytes | None:
        """The value of ``key``, or None."""
        where, value = _buffer(key), ctypes.create_string_buffer(self.shape.value_size)
        attr = struct.pack("=IIQQQ", self.fileno(), 0, _address(where), _address(value), 0)
        try:
            _call(Command.MAP_LOOKUP, attr, f"reading BPF map {self.name}")
        except BpfError as error:
            if error.errno == errno.ENOENT:
                return None
            raise
        return value.raw

    def set(self, key: bytes, value: bytes) -> None:
        """Insert or replace."""
        self._check(key, value)
        where, what = _buffer(key), _buffer(value)
        attr = struct.pack("=IIQQQ", self.fileno(), 0, _address(where), _address(what), 0)
        _call(Command.MAP_UPDATE, attr, f"writing BPF map {self.name}")

    def delete(self, key: bytes) -> bool:
        """Remove; whether it was there."""
        where = _buffer(key)
        attr = struct.pack("=IIQQQ", self.fileno(), 0, _address(where), 0, 0)
        try:
            _call(Command.MAP_DELETE, attr, f"writing BPF map {self.name}")
        except BpfError as error:
            if error.errno == errno.ENOENT:
                return False
            raise
        return True

    def items(self) -> dict[bytes, bytes]:
        """All entries, a few thousand with each call."""
        found: dict[bytes, bytes] = {}
        key_size, value_size = self.shape.key_size, self.shape.value_size
        size = _BATCH
        keys = ctypes.create_string_buffer(key_size * size)
        values = ctypes.create_string_buffer(value_size * size)
        token, start = ctypes.create_string_buffer(max(key_size, 8)), 0
        while True:
            attr = self._batch(start, _address(token), _address(keys), _address(values), size)
            count, last = self._lookup_batch(attr)
            if count < 0:  # one bucket holds more than the batch: a larger one
                size *= 4
                keys = ctypes.create_string_buffer(key_size * size)
                values = ctypes.create_string_buffer(value_size * size)
                continue
            raw_keys, raw_values = keys.raw, values.raw
            for i in range(count):
                found[raw_keys[i * key_size : (i + 1) * key_size]] = raw_values[
                    i * value_size : (i + 1) * value_size
                ]
            if last:
                return found
            start = _address(token)

    def _lookup_batch(self, attr: bytes) -> tuple[int, bool]:
        """How many entries came (-1: the batch is too small), and whether they were the last."""
        buffer = ctypes.create_string_buffer(attr.ljust(_ATTR_BYTES, b"\0"), _ATTR_BYTES)
        number = ctypes.c_long(_syscall_number())
        command = ctypes.c_long(Command.MAP_LOOKUP_BATCH)
        result = _libc.syscall(number, command, ctypes.byref(buffer), ctypes.c_ulong(_ATTR_BYTES))
        reason = ctypes.get_errno() if result < 0 else 0
        if reason == errno.ENOSPC:
            return -1, False
        if reason not in (0, errno.ENOENT):
            raise BpfError(f"reading BPF map {self.name}", reason)
        return struct.unpack_from("=I", buffer.raw, 32)[0], reason == errno.ENOENT

    def set_many(self, entries: Sequence[tuple[bytes, bytes]]) -> None:
        """Insert or replace all of ``entries``."""
        for key, value in entries:
            self._check(key, value)
        for part in _parts(entries):
            keys, values = _buffer(b"".join(k for k, _ in part)), _buffer(b"".join(v for _, v in part))
            attr = self._batch(0, 0, _address(keys), _address(values), len(part))
            _call(Command.MAP_UPDATE_BATCH, attr, f"writing {len(entries)} entries to BPF map {self.name}")

    def delete_many(self, wanted: Sequence[bytes]) -> None:
        """Remove all of ``wanted``, which are there."""
        for part in _parts(wanted):
            keys = _buffer(b"".join(part))
            attr = self._batch(0, 0, _address(keys), 0, len(part))
            _call(Command.MAP_DELETE_BATCH, attr, f"removing {len(wanted)} entries from BPF map {self.name}")

    def _batch(self, start: int, end: int, keys: int, values: int, count: int) -> bytes:
        return struct.pack("=QQQQIIQQ", start, end, keys, values, count, self.fileno(), 0, 0)

    def _check(self, key: bytes, value: bytes) -> None:
        if len(key) != self.shape.key_size or len(value) != self.shape.value_size:
            raise ValueError(
                f"BPF map {self.name} has keys of {self.shape.key_size} and values of "
                f"{self.shape.value_size} bytes; got {len(key)} and {len(value)}"
            )


def _parts(items: Sequence[_T]) -> Iterator[Sequence[_T]]:
    for start in range(0, len(items), _BATCH):
        yield items[start : start + _BATCH]


def _load_storage_types(value_size: int) -> Handle:
    """BTF for a socket storage map, which the kernel wants: type 1 is int, type 2 a structure of
    ``value_size``."""
    strings = b"\0int\0state\0"
    types = struct.pack("=IIII", 1, 1 << 24, 4, 1 << 24 | 32) + struct.pack("=III", 5, 4 << 24, value_size)
    header = struct.pack("=HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(strings))
    data = _buffer(header + types + strings)
    attr = struct.pack("=QQIII", _address(data), 0, len(header + types + strings), 0, 0)
    fd, _ = _call(Command.BTF_LOAD, attr, "loading type information")
    return Handle(fd)


def load_program(name: str, program_type: int, attach_type: int, code: bytes) -> Handle:
    """A verified program; the verifier's log is asked for only when it refuses."""
    instructions, license_text = _buffer(code), _buffer(b"Apache-2.0\0")

    def attr(log: ctypes.Array[ctypes.c_char] | None) -> bytes:
        return struct.pack(
            "=IIQQIIQII16sII",
            program_type,
            len(code) // 8,
            _address(instructions),
            _address(license_text),
            1 if log else 0,
            _LOG_BYTES if log else 0,
            _address(log) if log else 0,
            0,
            0,
            _name(name),
            0,
            attach_type,
        )

    what = f"loading BPF program {name}"
    try:
        fd, _ = _call(Command.PROG_LOAD, attr(None), what)
    except BpfError as first:
        if first.errno == errno.EPERM:
            raise
        log = ctypes.create_string_buffer(_LOG_BYTES)
        try:
            fd, _ = _call(Command.PROG_LOAD, attr(log), what)
        except BpfError as error:
            raise BpfError(what, first.errno, log.value.decode(errors="replace")) from error
    return Handle(fd)


def create_link(program: Handle, cgroup: Path, attach_type: int, what: str) -> Handle:
    """Attach ``program`` to a cgroup's folder; it is detached when the last handle and pin are gone."""
    folder = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        attr = struct.pack("=IIII", program.fileno(), folder, attach_type, 0)
        fd, _ = _call(Command.LINK_CREATE, attr, f"attaching {what} to {cgroup}")
    finally:
        os.close(folder)
    return Handle(fd)


def update_link(link: Handle, program: Handle, what: str) -> None:
    """Put ``program`` in the place of the link's present one, with no moment between."""
    attr = struct.pack("=IIII", link.fileno(), program.fileno(), 0, 0)
    _call(Command.LINK_UPDATE, attr, f"replacing the program of {what}")


def link_cgroup(link: Handle) -> int:
    """The id of the cgroup that a link is attached to; 0 where that cgroup is gone."""
    # bpf_link_info: type, id, prog_id, then (8-aligned) cgroup_id
    cgroup: int = struct.unpack_from("=Q", object_info(link, 32), 16)[0]
    return cgroup


def object_info(handle: Handle, size: int) -> bytes:
    """The first ``size`` bytes of what the kernel says of an object."""
    info = ctypes.create_string_buffer(size)
    attr = struct.pack("=IIQ", handle.fileno(), size, _address(info))
    _call(Command.OBJ_INFO, attr, "asking for a BPF object's description")
    return info.raw


def pin(fd: int, path: Path) -> None:
    """Give an object a name in bpffs, under which it lives on."""
    where = _buffer(os.fsencode(path) + b"\0")
    _call(Command.OBJ_PIN, struct.pack("=QII", _address(where), fd, 0), f"pinning {path}")


def open_pin(path: Path) -> Handle | None:
    """The object pinned at ``path``; None if there is none."""
    where = _buffer(os.fsencode(path) + b"\0")
    try:
        fd, _ = _call(Command.OBJ_GET, struct.pack("=QII", _address(where), 0, 0), f"opening {path}")
    except BpfError as error:
        if error.errno == errno.ENOENT:
            return None
        raise
    return Handle(fd)
