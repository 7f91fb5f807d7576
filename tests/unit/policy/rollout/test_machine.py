from __future__ import annotations

from dataclasses import replace

import pytest

from retia.policy.rollout import (
    Command,
    Evidence,
    Gates,
    NotPossible,
    Phase,
    Plan,
    PlanStep,
    Sample,
    State,
    advance,
    begin,
    command,
    waiting,
)
from retia.policy.rollout.machine import judge
from retia.policy.rollout.sample import Bin

GATES = Gates(min_success=99, max_latency_s=0.3, min_requests=50)
PLAN = Plan(
    (PlanStep(5, 30), PlanStep(25, 60), PlanStep(25, pause=True), PlanStep(100)), GATES, 3600, key="one"
)
GOOD = Evidence(Sample(100, 0, (Bin(10, 1, 100),)))
BAD = Evidence(Sample(100, 2, (Bin(10, 1, 100),)))
SLOW = Evidence(Sample(100, 0, (Bin(10, 1, 90), Bin(310, 10, 10))))
FEW = Evidence(Sample(49, 49, (Bin(10, 1, 49),)))
NONE = Evidence()


def start() -> State:
    return begin(PLAN, 1000.0)


def test_a_rollout_begins_with_the_weight_of_its_first_step() -> None:
    assert (start().phase, start().step, start().weight) == (Phase.PROGRESSING, 0, 5)


def test_a_step_lasts_at_least_as_long_as_its_hold() -> None:
    state = start()
    assert advance(PLAN, state, 1029.9, GOOD) is state
    assert advance(PLAN, state, 1030.0, GOOD).step == 1


def test_a_good_canary_goes_from_step_to_step_and_is_promoted() -> None:
    state = start()
    seen = []
    for now in range(1000, 1200):
        state = advance(PLAN, state, float(now), GOOD)
        if state.phase is Phase.PAUSED:
            state = command(PLAN, state, Command.RESUME, float(now))
        if (state.step, state.weight) not in seen:
            seen.append((state.step, state.weight))
    assert state.phase is Phase.PROMOTED
    assert seen == [(0, 5), (1, 25), (2, 25), (3, 100)]


@pytest.mark.parametrize(
    ("evidence", "reason"), [(BAD, "98.00 % succeeded"), (SLOW, "p95"), (FEW, "")], ids=["bad", "slow", "few"]
)
def test_a_broken_gate_takes_everything_back_at_once(evidence: Evidence, reason: str) -> None:
    after = advance(PLAN, start(), 1001.0, evidence)
    if not reason:
        assert after.phase is Phase.PROGRESSING, "too few requests say nothing"
        return
    assert (after.phase, after.weight) == (Phase.ROLLED_BACK, 0)
    assert reason in after.reason
    assert after.reason.startswith("at 5 %")


def test_a_pause_does_not_protect_a_bad_canary() -> None:
    paused = command(PLAN, start(), Command.PAUSE, 1001.0)
    assert advance(PLAN, paused, 1002.0, BAD).phase is Phase.ROLLED_BACK


@pytest.mark.parametrize(
    ("evidence", "words"),
    [
        (FEW, "requests: 49 of 50"),
        (replace(GOOD, missing="host b is away"), "measurements: host b is away"),
        (NONE, "requests: 0 of 50"),
        (Evidence(Sample(60)), "measurements: no request was timed"),
    ],
)
def test_it_never_goes_on_blindly(evidence: Evidence, words: str) -> None:
    state = start()
    assert advance(PLAN, state, 2000.0, evidence) is state
    assert waiting(PLAN, state, 2000.0, evidence) == words


def test_what_is_not_passed_within_the_deadline_is_taken_back() -> None:
    state = start()
    assert advance(PLAN, state, 1000 + 30 + 3600.0, FEW) is state
    ended = advance(PLAN, state, 1000 + 30 + 3600.1, FEW)
    assert ended.phase is Phase.ROLLED_BACK
    assert "requests: 49 of 50" in ended.reason


def test_a_deadline_of_zero_waits_for_ever() -> None:
    state = start()
    assert advance(replace(PLAN, deadline_s=0.0), state, 1e9, FEW) is state


def test_time_in_a_pause_counts_neither_for_the_hold_nor_for_the_deadline() -> None:
    paused = command(PLAN, start(), Command.PAUSE, 1010.0)
    assert advance(PLAN, paused, 1e6, GOOD) is paused
    resumed = command(PLAN, paused, Command.RESUME, 1e6)
    assert advance(PLAN, resumed, 1e6 + 19, GOOD) is resumed
    assert advance(PLAN, resumed, 1e6 + 20, GOOD).step == 1


def test_a_clock_that_goes_back_neither_advances_nor_ends_it() -> None:
    state = start()
    assert advance(PLAN, state, 10.0, GOOD) is state


def test_without_gates_only_time_counts() -> None:
    plan = Plan((PlanStep(50, 10), PlanStep(100, 10)), Gates(), key="two")
    state = advance(plan, begin(plan, 0.0), 10.0, replace(NONE, missing="all are away"))
    assert state.weight == 100
    assert advance(plan, state, 20.0, NONE).phase is Phase.PROMOTED


def test_a_step_of_weight_0_needs_no_requests() -> None:
    plan = replace(PLAN, steps=(PlanStep(0, 10), PlanStep(5)))
    assert advance(plan, begin(plan, 0.0), 10.0, NONE).step == 1


def test_other_versions_or_steps_begin_anew_with_samples_of_their_own() -> None:
    ended = advance(PLAN, start(), 1001.0, BAD)
    again = advance(replace(PLAN, key="other"), ended, 1002.0, GOOD)
    assert (again.phase, again.step, again.plan) == (Phase.PROGRESSING, 0, "other")
    assert again.epoch > ended.epoch


def test_final_phases_stay() -> None:
    for given in (Command.PROMOTE, Command.ABORT):
        ended = command(PLAN, start(), given, 1001.0)
        assert advance(PLAN, ended, 1e9, BAD) is ended


@pytest.mark.parametrize(
    ("given", "phase", "weight"),
    [
        (Command.PROMOTE, Phase.PROMOTED, 100),
        (Command.ABORT, Phase.ABORTED, 0),
        (Command.PAUSE, Phase.PAUSED, 5),
        (Command.RESTART, Phase.PROGRESSING, 5),
    ],
)
def test_commands(given: Command, phase: Phase, weight: int) -> None:
    after = command(PLAN, start(), given, 1001.0)
    assert (after.phase, after.weight) == (phase, weight)


def test_commands_that_mean_nothing_are_refused() -> None:
    with pytest.raises(NotPossible, match="not paused"):
        command(PLAN, start(), Command.RESUME, 1.0)
    with pytest.raises(NotPossible, match="paused already"):
        command(PLAN, command(PLAN, start(), Command.PAUSE, 1.0), Command.PAUSE, 2.0)
    aborted = command(PLAN, start(), Command.ABORT, 1.0)
    for given in (Command.PROMOTE, Command.PAUSE, Command.RESUME, Command.ABORT):
        with pytest.raises(NotPossible, match="restart"):
            command(PLAN, aborted, given, 2.0)


def test_what_was_promoted_can_still_be_taken_back_and_begun_anew() -> None:
    promoted = command(PLAN, start(), Command.PROMOTE, 1.0)
    aborted = command(PLAN, promoted, Command.ABORT, 2.0)
    assert (aborted.phase, aborted.weight) == (Phase.ABORTED, 0)
    again = command(PLAN, aborted, Command.RESTART, 3.0)
    assert (again.phase, again.step) == (Phase.PROGRESSING, 0)
    assert again.epoch > aborted.epoch > promoted.epoch


def test_a_gate_at_its_limit_is_content() -> None:
    assert judge(GATES, Sample(100, 1)) == ""
    assert judge(GATES, Sample(100, 0, (Bin(299, 1, 100),))) == ""
