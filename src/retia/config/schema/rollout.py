"""``Rollout``: a new version of one service takes over step by step, and only while it does well."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from retia.config.codes import Code
from retia.config.schema.base import Model, Problem, one_of
from retia.config.schema.types import (
    Count,
    DnsLabel,
    Flag,
    HostName,
    LabelMap,
    Percentage,
    PositiveDuration,
    WholePercent,
    ZeroOrDuration,
)

MAX_STEPS = 200
"""Two for each percent; arbitrary."""


class RolloutVersion(Model):
    """Some of a service's instances: a subset of its DestinationRule, or those with these labels."""

    subset: DnsLabel | None = None
    labels: LabelMap | None = None

    def problems(self) -> Iterator[Problem]:
        yield from one_of(self, "subset", "labels", required=True)
        if self.labels == ():
            yield Problem(("labels",), "must name at least one label", Code.MISSING_FIELD)


class RolloutStep(Model):
    """One step: a share of the requests, and what is waited for before the next."""

    weight: WholePercent | None = None
    """Percent of requests for the canary; absent: as in the step before (first step: 0)."""
    hold: ZeroOrDuration | None = None
    """How long the step lasts at least; absent or 0s: until the gates are content."""
    pause: Flag = False
    """Wait for ``retia rollout resume``."""

    def problems(self) -> Iterator[Problem]:
        if self.weight is None and self.hold is None and not self.pause:
            yield Problem((), "must have one of weight, hold, pause", Code.MISSING_FIELD)


class SuccessRateGate(Model):
    min: Percentage
    """Percent of the canary's requests of a step that must succeed (no 5xx answer)."""


class LatencyGate(Model):
    p: Annotated[Percentage, Field(gt=0, lt=100)] = 95.0
    """The percentile that is looked at."""
    max: PositiveDuration
    """What it may be at most, from sending the request to the end of the answer."""


class RolloutGates(Model):
    """What the canary must keep to in each step. Absent gates are not looked at."""

    success_rate: SuccessRateGate | None = None
    latency: LatencyGate | None = None
    min_requests: Count | None = None
    """Requests that the canary must have answered in a step before it is judged; absent: 50, and 0 where
    no other gate is given."""


class Rollout(Model):
    service: HostName
    """A service of the object's namespace, or a full host name."""
    stable: RolloutVersion
    canary: RolloutVersion
    steps: tuple[RolloutStep, ...]
    gates: RolloutGates = RolloutGates()
    progress_deadline: ZeroOrDuration | None = None
    """How long a step may go without being passed before the canary is taken back; pauses do not count.
    Absent: 1h; 0s: for ever. A step's own ``hold`` comes on top."""

    def problems(self) -> Iterator[Problem]:
        if not self.steps:
            yield Problem(("steps",), "must have at least one step", Code.MISSING_FIELD)
        if len(self.steps) > MAX_STEPS:
            message = f"has {len(self.steps)} entries; at most {MAX_STEPS} are allowed"
            yield Problem(("steps",), message, Code.BAD_VALUE)
            return
        if self.stable == self.canary:
            yield Problem(("canary",), "is the same as stable; they must be different versions")
        weights = [s.weight for s in self.steps if s.weight is not None]
        for index, step in enumerate(self.steps):
            if step.weight is not None and step.weight < max(weights[: _given(self.steps, index)], default=0):
                message = f"is {step.weight}, less than in a step before; steps only go up"
                yield Problem(("steps", index, "weight"), message)


def _given(steps: tuple[RolloutStep, ...], index: int) -> int:
    """How many of the steps before ``index`` give a weight."""
    return sum(1 for s in steps[:index] if s.weight is not None)
