"""What a benchmark gives: figures with their targets, and which group of rows measures them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Figure:
    """One measured number of one row."""

    row: str
    what: str
    value: float | None
    """``None``: it could not be measured here; ``note`` says why."""
    unit: str
    target: float | None = None
    """At most; ``None``: reported beside the others, nothing is promised."""
    details: dict[str, Any] = field(default_factory=dict)
    note: str = ""

    @property
    def met(self) -> bool | None:
        if self.value is None or self.target is None:
            return None
        return self.value <= self.target


@dataclass(frozen=True)
class Run:
    """How to measure."""

    folder: Path
    """For compiled programs, certificates and logs; gone afterwards."""
    quick: bool
    """Fewer repeats and smaller sizes: shows that it works, not how fast it is."""


@dataclass(frozen=True)
class Group:
    """Rows that are measured together, because they need the same mesh."""

    rows: dict[str, str]
    """By name, how each is measured, for the table."""
    measure: Callable[[Run, frozenset[str]], list[Figure]]
    """Gives the figures of the rows asked for."""
