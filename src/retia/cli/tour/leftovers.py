"""What a mesh must not leave on a host: processes, cgroups, pinned objects, mounts, sockets, files.

Only traces of the one mesh count, known by its state folder and by its index: others may start and end on the
same host at the same time.
"""

from __future__ import annotations

from pathlib import Path

from retia.cli.tour.processes import belonging_to
from retia.node.bpffs import BPFFS
from retia.node.cgroups import mounted, scope_name


def index_of(home: Path) -> int | None:
    """The index that the mesh of a state folder has, or had; ``None``: it never got one."""
    try:
        return int((home / "run" / "index").read_text())
    except (OSError, ValueError):
        return None


def bpffs_is_ours() -> bool:
    """Whether a bpffs is mounted that a mesh of this host has mounted."""
    return any(source == "retia" and where == BPFFS for source, where in mounted("bpf"))


def traces(home: Path, index: int | None, bpffs_before: bool) -> list[str]:
    """What there is of a mesh, in words; empty: nothing.

    ``bpffs_before``: :func:`bpffs_is_ours` before the mesh started. A mount that serves other meshes is not
    a trace of this one.
    """
    found = [f"process {process}" for process in belonging_to(home)]
    if index is not None:
        scope = scope_name(index)
        found += [f"cgroup {root / scope}" for _, root in mounted("cgroup2") if (root / scope).exists()]
        if _exists(BPFFS / scope):
            found.append(f"pinned object {BPFFS / scope}")
        if f"@retia-mesh-{index}" in _abstract_sockets():
            found.append(f"socket @retia-mesh-{index}")
    if bpffs_is_ours() and not bpffs_before and not _in_use():
        found.append(f"mount {BPFFS}")
    if home.exists():
        found.append(f"folder {home}")
    return found


def _in_use() -> bool:
    try:
        return any(BPFFS.glob("retia-*"))
    except OSError:
        return True


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return False


def _abstract_sockets() -> set[str]:
    lines = Path("/proc/net/unix").read_text().splitlines()[1:]
    return {line.split()[-1] for line in lines}
