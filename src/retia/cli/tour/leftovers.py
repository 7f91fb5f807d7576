"""What a mesh must not leave on a host: processes, cgroups, pinned objects, mounts, sockets, files.

The host is looked at before a stage starts and after it has ended. Only the difference counts and, of that,
only what bears the stage's own mesh index: other meshes may come and go on the same host meanwhile.
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
    ours = {f"{kind} on {point}" for point, kind in mounts if kind == "bpf"}
    return HostState(frozenset(cgroups), frozenset(pins), frozenset(ours), frozenset(_abstract_sockets()))


def difference(before: HostState, after: HostState, home: Path, index: int | None = None) -> list[str]:
    """What is there now and was not before; empty: nothing is left.

    ``index`` is the mesh's; without one (it never got that far) every mesh's things count. The BPF file
    system may stay mounted while another mesh has something in it.
    """
    found = [f"process {process}" for process in belonging_to(home)]
    for word, old, new in (
        ("cgroup", before.cgroups, after.cgroups),
        ("pinned object", before.pins, after.pins),
        ("mount", before.mounts, after.mounts if not after.pins else frozenset()),
        ("socket", before.sockets, after.sockets),
    ):
        found += [f"{word} {name}" for name in sorted(new - old) if word == "mount" or _belongs(name, index)]
    if home.exists():
        found.append(f"folder {home}")
    return found


def _belongs(name: str, index: int | None) -> bool:
    return index is None or name.endswith((f"retia-{index}", f"retia-mesh-{index}"))


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
