"""What a mesh must not leave on a host: processes, cgroups, pinned objects, mounts, sockets, files.

The host is looked at before a stage starts and after it has ended; only the difference counts, so other
meshes on the same host do not disturb.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from retia.cli.tour.processes import belonging_to

PINS = Path("/sys/fs/bpf")


@dataclass(frozen=True, slots=True)
class HostState:
    """The things of a host that bear the mesh's name."""

    cgroups: frozenset[str]
    pins: frozenset[str]
    mounts: frozenset[str]
    sockets: frozenset[str]


def look() -> HostState:
    """The host as it is now."""
    mounts = _mounts()
    roots = [point for point, kind in mounts if kind == "cgroup2"]
    cgroups = {str(path) for root in roots for path in Path(root).glob("retia-*")}
    pins = {str(path) for path in _children(PINS) if path.name.startswith("retia-")}
    ours = {f"{kind} on {point}" for point, kind in mounts if kind == "bpf" or "retia" in point}
    return HostState(frozenset(cgroups), frozenset(pins), frozenset(ours), frozenset(_abstract_sockets()))


def difference(before: HostState, after: HostState, home: Path) -> list[str]:
    """What is there now and was not before; empty: nothing is left."""
    found = [f"process {process}" for process in belonging_to(home)]
    for word, old, new in (
        ("cgroup", before.cgroups, after.cgroups),
        ("pinned object", before.pins, after.pins),
        ("mount", before.mounts, after.mounts),
        ("socket", before.sockets, after.sockets),
    ):
        found += [f"{word} {name}" for name in sorted(new - old)]
    if home.exists():
        found.append(f"folder {home}")
    return found


def _mounts() -> list[tuple[str, str]]:
    """Mount points with their file system's kind."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, rest = line.partition(" - ")
        found.append((fields.split()[4], rest.split()[0]))
    return found


def _children(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _abstract_sockets() -> set[str]:
    lines = Path("/proc/net/unix").read_text().splitlines()[1:]
    names = (line.split()[-1] for line in lines)
    return {name for name in names if name.startswith("@retia-mesh-")}
