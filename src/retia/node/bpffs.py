"""The file system in which maps and links are pinned, mounted by us where the host has not.

A mount of ours is known by its source, ``retia``, whichever agent made it; the last mesh on the host takes
it away.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from retia.node.cgroups import mounted
from retia.node.errors import CaptureUnavailable

BPFFS = Path("/sys/fs/bpf")
_SOURCE = "retia"
_KERNELS_OWN = ".debug"
"""Kernels with BPF_PRELOAD put ``maps.debug`` and ``progs.debug`` into every bpffs."""

_libc = ctypes.CDLL(None, use_errno=True)


def is_mounted(folder: Path = BPFFS) -> bool:
    """Whether a bpffs is mounted at ``folder``."""
    return any(where == folder for _, where in mounted("bpf"))


def mount(folder: Path = BPFFS) -> None:
    """Mount a bpffs unless there is one; CaptureUnavailable if that is refused."""
    if is_mounted(folder):
        return
    result = _libc.mount(_SOURCE.encode(), os.fsencode(folder), b"bpf", ctypes.c_ulong(0), b"mode=0700")
    if result != 0:
        reason = os.strerror(ctypes.get_errno())
        raise CaptureUnavailable("bpffs", f"cannot mount it at {folder}: {reason}; mount -t bpf bpf {folder}")


def unmount_own(folder: Path = BPFFS) -> bool:
    """Unmount a bpffs that is empty and that one of our agents mounted; whether that was done."""
    if not any(source == _SOURCE and where == folder for source, where in mounted("bpf")):
        return False
    if any(not entry.name.endswith(_KERNELS_OWN) for entry in folder.iterdir()):
        return False
    return bool(_libc.umount2(os.fsencode(folder), ctypes.c_int(0)) == 0)
