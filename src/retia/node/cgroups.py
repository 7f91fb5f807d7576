"""Cgroups of version 2: where they are, and a mesh's own branch of them.

A mesh has ``<cgroup2>/retia-<k>`` with ``wl/<instance>`` (captured programs), ``px/<proxy>`` (Envoys) and
``ag`` (the agent). No controller is switched on: the folders only say who a process is. They belong to
root, so that no workload can move itself into another's.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, unquote

from retia.node.errors import CaptureError, CaptureUnavailable, InstanceBusy

_MOUNTS = Path("/proc/mounts")
_ESCAPED = re.compile(r"\\([0-7]{3})")
_REMOVE_TIMEOUT_S = 5.0

_INITIAL_NAMESPACES = 4026532100
"""Numbers below are given at boot; the initial network namespace has one of them (4026531833, 4026531840 and
4026531992 were seen). Used only where process 1 cannot be asked."""


def mounted(kind: str, mounts: Path = _MOUNTS) -> Iterator[tuple[str, Path]]:
    """Source and folder of every mounted file system of ``kind``."""
    for line in mounts.read_text().splitlines():
        fields = line.split(" ")
        if len(fields) > 2 and fields[2] == kind:
            yield fields[0], Path(_ESCAPED.sub(lambda found: chr(int(found[1], 8)), fields[1]))


def find_cgroup2(mounts: Path = _MOUNTS) -> Path:
    """The folder where cgroup v2 is mounted, beside v1 or alone; CaptureUnavailable if it is not."""
    for _, folder in mounted("cgroup2", mounts):
        if (folder / "cgroup.procs").exists():
            return folder
    raise CaptureUnavailable(
        "cgroup2", "cgroup v2 is not mounted; mount -t cgroup2 none /sys/fs/cgroup/unified"
    )


def scope_name(index: int) -> str:
    """The name of a mesh's folder in cgroup2 and bpffs: ``retia-<k>``.

    Loopback addresses and mesh indexes belong to a network namespace, cgroups and bpffs usually to the whole
    machine: in another namespace than process 1's, the name carries that namespace's number.
    """
    own = Path("/proc/self/ns/net").stat().st_ino
    return f"retia-{index}" if _is_initial(own) else f"retia-{index}-{own}"


def _is_initial(namespace: int) -> bool:
    try:
        return namespace == Path("/proc/1/ns/net").stat().st_ino
    except OSError:
        return namespace < _INITIAL_NAMESPACES


def folder_name(name: str) -> str:
    """An instance's or proxy's id as the name of a folder: ``default/web-0`` gives ``default%2Fweb-0``."""
    return quote(name, safe="") if name.strip(".") else name.replace(".", "%2E")


def id_of(folder: str) -> str:
    """What :func:`folder_name` was given."""
    return unquote(folder)


def cgroup_id(cgroup: Path) -> int:
    """The number by which BPF programs know a cgroup: its folder's inode."""
    return cgroup.stat().st_ino


def make(cgroup: Path) -> None:
    """Make a cgroup and those above it; those that exist are kept."""
    try:
        cgroup.mkdir(parents=True, exist_ok=True, mode=0o755)
    except OSError as error:
        raise CaptureError(f"cannot make cgroup {cgroup}: {error.strerror}") from error


def move(pid: int, cgroup: Path) -> None:
    """Move a process, with all its threads; ProcessLookupError if it is gone.

    Sockets that it has already stay with its old cgroup, so move before the program is executed.
    """
    try:
        (cgroup / "cgroup.procs").write_text(f"{pid}\n")
    except OSError as error:
        if error.errno == errno.ESRCH:
            raise ProcessLookupError(f"process {pid} is gone") from error
        raise CaptureError(f"cannot move process {pid} to cgroup {cgroup}: {error.strerror}") from error


def pids(cgroup: Path) -> tuple[int, ...]:
    """All processes of a cgroup and those below it."""
    found: list[int] = []
    for folder, _, _ in os.walk(cgroup):
        with contextlib.suppress(OSError):
            found += map(int, (Path(folder) / "cgroup.procs").read_text().split())
    return tuple(found)


def remove(cgroup: Path, *, kill: bool = False) -> None:
    """Remove a cgroup and those below it.

    :class:`InstanceBusy` if processes live there, unless ``kill``: then they are killed first, which is
    waited for at most 5 s. A cgroup that is not there is as good as removed.
    """
    if not cgroup.exists():
        return
    deadline = time.monotonic() + _REMOVE_TIMEOUT_S
    if kill:
        _kill(cgroup)
    while True:
        if _remove_tree(cgroup):
            return
        left = pids(cgroup)
        if (left and not kill) or time.monotonic() > deadline:
            raise InstanceBusy(str(cgroup), left)
        time.sleep(0.005)


def evacuate(cgroup: Path, to: Path) -> None:
    """Move every process of a cgroup and those below it to another."""
    for _ in range(100):
        found = pids(cgroup)
        if not found:
            return
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                move(pid, to)


def _kill(cgroup: Path) -> None:
    switch = cgroup / "cgroup.kill"
    if switch.exists():
        switch.write_text("1")
        return
    for pid in pids(cgroup):  # kernels before 5.14
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, 9)


def _remove_tree(cgroup: Path) -> bool:
    """Remove from the leaves up; whether all is gone."""
    done = True
    for folder, _, _ in os.walk(cgroup, topdown=False):
        done = _remove_folder(Path(folder)) and done
    return done and not cgroup.exists()


def _remove_folder(folder: Path) -> bool:
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
