from __future__ import annotations

import json
import time

import pytest

from retia.api import schema
from tests.unit.api.fakes import FakeBackend
from tests.unit.cli.conftest import Run


def info(name: str = "reviews", **changes: object) -> schema.RolloutInfo:
    values: dict[str, object] = {
        "namespace": "default",
        "name": name,
        "service": "reviews",
        "phase": "progressing",
        "step": 1,
        "steps": [schema.RolloutStepInfo(weight=5, hold_s=30), schema.RolloutStepInfo(weight=50)],
        "weight": 5,
        "waiting": "requests: 12 of 50",
        "changed": int(time.time()) - 60,
        "requests": 12,
        "success_percent": 100.0,
        "latency_ms": 41.2,
        "percentile": 95.0,
    }
    return schema.RolloutInfo.model_validate(values | changes)


def test_status_shows_where_it_is_and_what_it_waits_for(run: Run, backend: FakeBackend) -> None:
    backend.rollouts = [info()]
    ran = run("rollout", "status")
    assert ran.code == 0
    for word in ("reviews", "progressing", "1/2", "5 %", "100.00 %", "p95 41 ms"):
        assert word in ran.out
    assert "waits for requests: 12 of 50" in ran.err


def test_status_as_json(run: Run, backend: FakeBackend) -> None:
    backend.rollouts = [info()]
    assert json.loads(run("rollout", "status", "reviews", "-o", "json").out)[0]["weight"] == 5


def test_no_rollouts(run: Run, backend: FakeBackend) -> None:
    assert "no rollouts" in run("rollout", "status").err


@pytest.mark.parametrize(("phase", "code"), [("promoted", 0), ("rolled-back", 1), ("aborted", 1)])
def test_watching_ends_with_the_rollout(run: Run, backend: FakeBackend, phase: str, code: int) -> None:
    backend.rollouts = [info(phase=phase, reason="so it is", waiting="")]
    ran = run("rollout", "status", "reviews", "--watch")
    assert ran.code == code
    assert phase in ran.out


def test_watch_needs_one_name(run: Run, backend: FakeBackend) -> None:
    assert run("rollout", "status", "--watch").code == 2


@pytest.mark.parametrize("action", ["promote", "abort", "pause", "resume", "restart"])
def test_commands_are_told(run: Run, backend: FakeBackend, action: str) -> None:
    backend.rollouts = [info()]
    ran = run("rollout", action, "reviews")
    assert ran.code == 0
    assert backend.commands == [("reviews", action)]
    assert "default/reviews: progressing" in ran.err


def test_what_means_nothing_is_refused(run: Run, backend: FakeBackend) -> None:
    backend.rollouts = [info(phase="rolled-back")]
    ran = run("rollout", "promote", "reviews")
    assert ran.code == 1
    assert "rolled-back" in ran.err
    assert run("rollout", "pause", "nothing").code == 1
