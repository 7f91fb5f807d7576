"""What a supervisor leaves for the next one: which workloads, processes and objects are its doing.

A supervisor that was killed cannot stop its programs; the next ``up`` or ``down`` reads here which they are.
Objects are remembered across ``down``, so that one that left the mesh file meanwhile is deleted.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

FILE = "up.json"


@dataclass(frozen=True, slots=True)
class Memory:
    workloads: frozenset[str] = frozenset()
    objects: frozenset[str] = frozenset()
    platform: frozenset[str] = frozenset()
    """``controller`` and ``agent``, as far as a supervisor started them."""


def read(home: Path) -> Memory:
    """What was written last; nothing where there is no readable file."""
    try:
        value = json.loads((home / FILE).read_text())
        return Memory(*(frozenset(map(str, value.get(name, ()))) for name in Memory.__slots__))
    except (OSError, ValueError, AttributeError, TypeError):
        return Memory()


def write(home: Path, memory: Memory) -> None:
    """Replaces the file in one step. A full disk is no reason to stop: the mesh itself goes on."""
    value = {name: sorted(getattr(memory, name)) for name in Memory.__slots__}
    partial = home / f".{FILE}.{os.getpid()}"
    with contextlib.suppress(OSError):
        partial.write_text(json.dumps(value))
        partial.replace(home / FILE)
