"""The middle form of OverloadPolicy."""

from __future__ import annotations

from dataclasses import dataclass

from retia.model.resource import Provenance
from retia.policy.ratelimit.forms import Test


@dataclass(frozen=True, slots=True)
class Adaptive:
    """Adaptive concurrency; times in seconds, shares in percent."""

    least: int
    most: int
    update_s: float
    measure_s: float
    percentile: float
    buffer_percent: float


@dataclass(frozen=True, slots=True)
class Admission:
    """Admission control by success rate."""

    success_percent: float
    window_s: float
    min_rps: int
    max_refused_percent: float


@dataclass(frozen=True, slots=True)
class Critical:
    """Which requests are critical: all of it must hold."""

    method: str = ""
    path: Test | None = None
    headers: tuple[tuple[str, Test], ...] = ()


@dataclass(frozen=True, slots=True)
class Shedding:
    """The ceilings of two classes; ``critical_most`` 0: none."""

    critical: tuple[Critical, ...]
    most: int
    critical_most: int = 0


@dataclass(frozen=True, slots=True)
class Overload:
    """What holds for one place: of several policies the oldest decides each part."""

    adaptive: Adaptive | None = None
    admission: Admission | None = None
    shedding: Shedding | None = None
    provenance: tuple[Provenance, ...] = ()
