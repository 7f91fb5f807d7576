"""How a rollout goes on: a pure machine; time and samples are arguments.

Never forward blindly: a step is passed when its hold is over, its sample is complete and large enough, and
all gates are content. Back at once: a sample that is large enough and breaks a gate takes all requests from
the canary, also while the rollout is paused. One call of :func:`advance` passes one step at most, because
the next one needs a sample of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from retia.policy.rollout.plan import Gates, Plan
from retia.policy.rollout.sample import Evidence, Sample


class Phase(StrEnum):
    PROGRESSING = "progressing"
    PAUSED = "paused"
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled-back"
    """By a gate or the deadline."""
    ABORTED = "aborted"
    """By a person."""

    @property
    def is_final(self) -> bool:
        return self in (Phase.PROMOTED, Phase.ROLLED_BACK, Phase.ABORTED)


class Command(StrEnum):
    PROMOTE = "promote"
    """All requests for the canary, now."""
    ABORT = "abort"
    """No request for the canary, now."""
    PAUSE = "pause"
    RESUME = "resume"
    RESTART = "restart"
    """From the first step."""


class NotPossible(Exception):  # noqa: N818
    """The command means nothing in this phase; one sentence."""


@dataclass(frozen=True, slots=True)
class State:
    """How far a rollout has come. Times are seconds since 1970."""

    plan: str
    """The key of the plan that it follows."""
    phase: Phase
    step: int
    """Index of the current step; of the last one that was reached where the phase is final."""
    weight: int
    """Percent of requests for the canary."""
    since: float
    """When the step began, or was resumed."""
    spent_s: float = 0.0
    """Time of this step before the last pause."""
    reason: str = ""
    """Why the phase is what it is; one sentence."""
    changed: float = 0.0
    """When phase, step or weight changed last."""
    epoch: int = 0
    """Grows with every step entered: samples of another epoch do not count."""

    def elapsed_s(self, now: float) -> float:
        """How long the step has lasted, pauses left out."""
        running = max(0.0, now - self.since) if self.phase is Phase.PROGRESSING else 0.0
        return self.spent_s + running


def begin(plan: Plan, now: float, epoch: int = 1) -> State:
    """At the first step."""
    return _enter(plan, 0, now, epoch)


def advance(plan: Plan, state: State, now: float, evidence: Evidence) -> State:
    """The state after looking at the evidence once."""
    if state.plan != plan.key:
        return begin(plan, now, state.epoch + 1)
    if state.phase.is_final:
        return state
    broken = judge(plan.gates, evidence.sample) if state.weight > 0 else ""
    if broken:
        return _end(state, Phase.ROLLED_BACK, 0, f"at {state.weight} %: {broken}", now)
    if state.phase is Phase.PAUSED:
        return state
    held = waiting(plan, state, now, evidence)
    if not held:
        return _next(plan, state, now)
    late_s = state.elapsed_s(now) - plan.steps[state.step].hold_s
    if plan.deadline_s and late_s > plan.deadline_s:
        reason = f"at {state.weight} %: the step was not passed within {_time(plan.deadline_s)}: {held}"
        return _end(state, Phase.ROLLED_BACK, 0, reason, now)
    return state


def judge(gates: Gates, sample: Sample) -> str:
    """Which gate a large enough sample breaks, as a sentence; empty: none."""
    if sample.requests < max(gates.min_requests, 1):
        return ""
    rate = sample.success_percent
    if gates.min_success is not None and rate < gates.min_success:
        return (
            f"{sample.failures} of {sample.requests} requests failed: {rate:.2f} % succeeded, "
            f"at least {gates.min_success:g} % must"
        )
    took = sample.percentile_s(gates.percentile)
    if gates.max_latency_s is not None and took is not None and took > gates.max_latency_s:
        return (
            f"p{gates.percentile:g} of {sample.requests} requests is {_time(took)}, "
            f"at most {_time(gates.max_latency_s)} is allowed"
        )
    return ""


def waiting(plan: Plan, state: State, now: float, evidence: Evidence) -> str:
    """What the current step waits for; empty: for nothing."""
    if state.phase.is_final:
        return ""
    if state.phase is Phase.PAUSED:
        return "'retia rollout resume'"
    step = plan.steps[state.step]
    left_s = step.hold_s - state.elapsed_s(now)
    if left_s > 0:
        return f"its hold of {_time(step.hold_s)}"
    if state.weight == 0 or not plan.gates.any:
        return ""
    if evidence.missing:
        return f"measurements: {evidence.missing}"
    sample = evidence.sample
    if sample.requests < plan.gates.min_requests:
        return f"requests: {sample.requests} of {plan.gates.min_requests}"
    if plan.gates.max_latency_s is not None and sample.requests and not sample.bins:
        return "measurements: no request was timed"
    return ""


def command(plan: Plan, state: State, given: Command, now: float) -> State:
    """The state after a person's command. Raises :class:`NotPossible`."""
    if given is Command.RESTART:
        return begin(plan, now, state.epoch + 1)
    if given is Command.ABORT and state.phase is Phase.PROMOTED:
        # A bad version that was promoted must be easy to take back.
        return _end(state, Phase.ABORTED, 0, "aborted by hand after it was promoted", now)
    if state.phase.is_final:
        raise NotPossible(f"it is {state.phase}; 'retia rollout restart' begins anew")
    match given:
        case Command.PROMOTE:
            return _end(state, Phase.PROMOTED, 100, "promoted by hand", now)
        case Command.ABORT:
            return _end(state, Phase.ABORTED, 0, "aborted by hand", now)
        case Command.PAUSE:
            if state.phase is Phase.PAUSED:
                raise NotPossible("it is paused already")
            return replace(
                state, phase=Phase.PAUSED, spent_s=state.elapsed_s(now), reason="paused by hand", changed=now
            )
        case Command.RESUME:
            if state.phase is not Phase.PAUSED:
                raise NotPossible("it is not paused")
            return replace(state, phase=Phase.PROGRESSING, since=now, reason="", changed=now)


def _next(plan: Plan, state: State, now: float) -> State:
    if state.step + 1 >= len(plan.steps):
        return _end(state, Phase.PROMOTED, 100, "all steps were passed", now)
    return _enter(plan, state.step + 1, now, state.epoch + 1)


def _enter(plan: Plan, index: int, now: float, epoch: int) -> State:
    step = plan.steps[index]
    phase = Phase.PAUSED if step.pause else Phase.PROGRESSING
    reason = f"step {index + 1} pauses" if step.pause else ""
    return State(plan.key, phase, index, step.weight, now, reason=reason, changed=now, epoch=epoch)


def _end(state: State, phase: Phase, weight: int, reason: str, now: float) -> State:
    return replace(
        state,
        phase=phase,
        weight=weight,
        spent_s=state.elapsed_s(now),
        reason=reason,
        changed=now,
        epoch=state.epoch + 1,
    )


def _time(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 10 and seconds % 1 else f"{seconds:.0f} s"
