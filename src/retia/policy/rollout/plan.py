"""What a Rollout asks for, with every default filled in."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from retia.config.schema.rollout import Rollout

DEFAULT_DEADLINE_S = 3600.0
DEFAULT_MIN_REQUESTS = 50
"""Arbitrary: with fewer, one failure is 2 % and more."""


@dataclass(frozen=True, slots=True)
class PlanStep:
    """``weight``: percent for the canary; ``hold_s`` 0: no longer than the gates need."""

    weight: int
    hold_s: float = 0.0
    pause: bool = False


@dataclass(frozen=True, slots=True)
class Gates:
    """``None``: not looked at."""

    min_success: float | None = None
    """Percent."""
    percentile: float = 95.0
    max_latency_s: float | None = None
    min_requests: int = 0

    @property
    def any(self) -> bool:
        """Whether requests must be counted."""
        return self.min_success is not None or self.max_latency_s is not None or self.min_requests > 0


@dataclass(frozen=True, slots=True)
class Plan:
    steps: tuple[PlanStep, ...]
    gates: Gates = Gates()
    deadline_s: float = DEFAULT_DEADLINE_S
    """Beyond a step's hold; 0: none."""
    key: str = ""
    """Equal for plans whose progress may go on where the other's was: same versions, same steps."""


def plan_of(spec: Rollout) -> Plan:
    """The plan of an object."""
    weight = 0
    steps: list[PlanStep] = []
    for step in spec.steps:
        weight = weight if step.weight is None else step.weight
        steps.append(PlanStep(weight, float(step.hold or 0.0), step.pause))
    deadline = spec.progress_deadline
    return Plan(
        tuple(steps),
        _gates(spec),
        DEFAULT_DEADLINE_S if deadline is None else float(deadline),
        _key(spec, tuple(steps)),
    )


def _gates(spec: Rollout) -> Gates:
    given = spec.gates
    judged = given.success_rate is not None or given.latency is not None
    least = given.min_requests
    if least is None:
        least = DEFAULT_MIN_REQUESTS if judged else 0
    return Gates(
        float(given.success_rate.min) if given.success_rate is not None else None,
        float(given.latency.p) if given.latency is not None else 95.0,
        float(given.latency.max) if given.latency is not None else None,
        least,
    )


def _key(spec: Rollout, steps: tuple[PlanStep, ...]) -> str:
    """Gates and deadline may change under way; versions and steps may not."""
    named = (spec.service, *((v.subset or "", v.labels or ()) for v in (spec.stable, spec.canary)), steps)
    return hashlib.sha256(repr(named).encode()).hexdigest()[:16]
