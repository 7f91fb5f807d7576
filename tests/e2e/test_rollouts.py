"""Rollouts with real requests: bad versions are taken back, a good one is promoted."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from retia.api.client import ClientError
from retia.api.schema import RolloutCommand, RolloutInfo
from retia.cli.tour.client import Visitor
from retia.cli.tour.processes import wait_until
from retia.cli.tour.stage import Stage

pytestmark = [pytest.mark.privileged, pytest.mark.timeout(120)]

PROGRAM = """
import http.server, os, sys, time

class Hello(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1

    def do_GET(self):
        version = os.environ["VERSION"]
        time.sleep(0.3 if version == "slow" else 0)
        body = b'{"version": "%s"}' % version.encode()
        self.send_response(500 if version == "bad" else 200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass

http.server.ThreadingHTTPServer(("0.0.0.0", 8000), Hello).serve_forever()
"""

MESH = """
services:
  hello:
    command: {python} hello.py
    ports: [8000/http]
    versions:
      - {{name: old, environment: {{VERSION: old}}}}
      - {{name: good, environment: {{VERSION: good}}}}
      - {{name: bad, environment: {{VERSION: bad}}}}
      - {{name: slow, environment: {{VERSION: slow}}}}
"""

ROLLOUT = """
apiVersion: retia.dev/v1alpha1
kind: Rollout
metadata: {{name: hello}}
spec:
  service: hello
  stable: {{labels: {{version: old}}}}
  canary: {{labels: {{version: {canary}}}}}
  steps: {steps}
  gates:
    successRate: {{min: 99}}
    latency: {{p: 50, max: 200ms}}
    minRequests: 20
"""

HELLO = "http://hello:8000/"
FINAL = ("promoted", "rolled-back", "aborted")


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("rollout")
    (folder / "retia.yaml").write_text(MESH.format(python=sys.executable))
    (folder / "hello.py").write_text(PROGRAM)
    with Stage(folder / "retia.yaml", capture="ebpf") as started:
        yield started
    assert started.left == []


@pytest.fixture(scope="module")
def visitor(stage: Stage) -> Visitor:
    return stage.visitor()


@contextmanager
def load(visitor: Visitor) -> Iterator[Counter[str]]:
    """Requests without end, counted by who answered."""
    seen: Counter[str] = Counter()
    ended = threading.Event()

    def call() -> None:
        while not ended.is_set():
            seen.update(str(a.json().get("version", a)) for a in visitor.many(HELLO, 20, parallel=4))

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join(30)


def roll(stage: Stage, canary: str, steps: str) -> None:
    stage.apply_text(ROLLOUT.format(canary=canary, steps=steps))


def status(stage: Stage) -> RolloutInfo | None:
    try:
        return stage.client.get_rollout("default", "hello")
    except ClientError:
        return None


def reached(stage: Stage, wanted: Callable[[RolloutInfo], bool], timeout_s: float = 20) -> RolloutInfo:
    last: list[RolloutInfo | None] = [None]

    def look() -> bool:
        last[0] = status(stage)
        return last[0] is not None and wanted(last[0])

    assert wait_until(look, timeout_s, poll_s=0.1), f"the rollout stays at {last[0]}"
    assert last[0] is not None
    return last[0]


def test_a_bad_version_is_taken_back(stage: Stage, visitor: Visitor) -> None:
    with load(visitor) as seen:
        roll(stage, "bad", "[{weight: 20, hold: 30s}, {weight: 100}]")
        ended = reached(stage, lambda s: s.phase in FINAL)
    assert (ended.phase, ended.weight) == ("rolled-back", 0)
    assert "requests failed" in ended.reason
    assert seen["bad"] > 0
    assert set(seen) <= {"old", "bad"}, "counting begins without a request lost"
    after = Counter(str(a.json().get("version", a)) for a in visitor.many(HELLO, 60))
    assert after == {"old": 60}


def test_a_slow_version_is_taken_back(stage: Stage, visitor: Visitor) -> None:
    with load(visitor):
        roll(stage, "slow", "[{weight: 30, hold: 30s}]")
        ended = reached(stage, lambda s: s.phase in FINAL)
    assert (ended.phase, ended.weight) == ("rolled-back", 0)
    assert "p50" in ended.reason


def test_a_good_version_is_promoted_although_the_controller_restarts(stage: Stage, visitor: Visitor) -> None:
    roll(stage, "good", "[{weight: 10, hold: 2s}, {weight: 50, hold: 2s}, {weight: 90}]")
    waits = reached(stage, lambda s: s.step == 1 and s.waiting.startswith("requests"), 10)
    assert waits.weight == 10, "without requests a step is not passed"
    with load(visitor) as seen:
        reached(stage, lambda s: s.step == 2)
        os.kill(stage.client.status().pid, signal.SIGKILL)
        back = reached(stage, lambda s: True)
        assert back.step >= 2
        ended = reached(stage, lambda s: s.phase in FINAL, 30)
    assert (ended.phase, ended.weight) == ("promoted", 100), ended.reason
    assert set(seen) == {"old", "good"}
    assert wait_until(
        lambda: {str(a.json().get("version", a)) for a in visitor.many(HELLO, 30)} == {"good"}, 5
    )


def test_a_pause_waits_for_a_person_who_may_take_it_back(stage: Stage, visitor: Visitor) -> None:
    roll(stage, "good", "[{weight: 50, pause: true}, {weight: 100, hold: 1h}]")
    reached(stage, lambda s: s.phase == "paused" and s.weight == 50)
    half = Counter(str(a.json().get("version", a)) for a in visitor.many(HELLO, 100))
    assert 20 <= half["good"] <= 80
    stage.client.command_rollout("default", "hello", RolloutCommand(action="resume"))
    with load(visitor):
        reached(stage, lambda s: s.step == 2 and s.weight == 100)
    aborted = stage.client.command_rollout("default", "hello", RolloutCommand(action="abort"))
    assert (aborted.phase, aborted.weight) == ("aborted", 0)
    with pytest.raises(ClientError, match="restart"):
        stage.client.command_rollout("default", "hello", RolloutCommand(action="promote"))
