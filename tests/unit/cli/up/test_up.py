"""``retia up`` and ``down`` whole, with real processes; only controller and agent are fakes."""

from __future__ import annotations

import os
import signal
import socket
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from retia.cli.tour.stage import free_port
from tests.unit.api.fakes import FakeBackend
from tests.unit.cli import fake_agent
from tests.unit.cli.conftest import Run
from tests.unit.cli.fake_agent import FakeAgent, alive

PROGRAM = """
import os, signal, socket, sys
print("hello from", os.environ["RETIA_WORKLOAD"], os.environ.get("WORD", ""), flush=True)
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    server.accept()[0].close()
"""


@pytest.fixture
def agent(backend: FakeBackend, home: Path) -> Iterator[FakeAgent]:
    fake = FakeAgent()
    with fake_agent.serving(fake, home / "run" / "agent.sock"):
        yield fake


Mesh = Callable[[str], Path]


@pytest.fixture
def mesh(agent: FakeAgent, tmp_path: Path, run: Run) -> Iterator[Mesh]:
    """Writes the mesh file; whatever it started is stopped at the end."""
    (tmp_path / "program.py").write_text(PROGRAM)

    def write(text: str) -> Path:
        path = tmp_path / "retia.yaml"
        path.write_text(textwrap.dedent(text).replace("PROGRAM", f"{sys.executable} program.py"))
        return path

    yield write
    pid = supervisor(run)
    if pid:
        os.kill(pid, signal.SIGTERM)
        until(lambda: not alive(pid), "the supervisor ends")


def supervisor(run: Run) -> int:
    from retia.cli.session import Session
    from retia.cli.up import talk

    found = talk.find(Session.of("", os.environ).up_socket)
    if found is None:
        return 0
    with found:
        return found.pid


def until(true: Callable[[], bool], what: str, timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def test_a_mesh_comes_up_changes_by_its_difference_and_goes_down(
    run: Run, mesh: Mesh, agent: FakeAgent, backend: FakeBackend, tmp_path: Path
) -> None:
    (tmp_path / "vs.yaml").write_text("kind: VirtualService\nmetadata: {name: one}\n")
    a, b, c = free_port(), free_port(), free_port()
    text = f"""
        config: vs.yaml
        services:
          back: {{command: PROGRAM {b}, ports: [{b}]}}
          front:
            command: "PROGRAM ${{port:{a}}}"
            ports: [{a}]
            replicas: 2
            depends_on: [back]
            environment: {{WORD: first, BACK: "${{upstream:back:{b}}}"}}
    """
    ran = run("up", str(mesh(text)), "--detach", "-o", "json")
    assert ran.code == 0, ran.err
    assert ran.json["workloads"] == 3
    assert next(name for what, name in agent.calls if what == "launch") == "default/back-0"
    assert ("VirtualService", "default", "one") in backend.objects
    assert agent.launches["default/front-0"].upstreams[0].host == "back"
    back, fronts = agent.pids("back"), agent.pids("front")
    environment = Path(f"/proc/{fronts[0]}/environ").read_text().split("\0")
    assert "BACK=127.0.0.1:20000" in environment
    assert "http_proxy=http://127.0.0.1:1" in environment

    assert "hello from default/back-0" in run("logs", "back").out
    assert sorted(line.split()[0] for line in run("logs").out.splitlines()) == [
        "back-0",
        "front-0",
        "front-1",
    ]

    same = run("up", str(mesh(text)), "--detach", "-o", "json")
    assert (same.json["changed"], agent.pids("back"), agent.pids("front")) == (False, back, fronts)

    (tmp_path / "vs.yaml").write_text("kind: VirtualService\nmetadata: {name: two}\n")
    agent.calls.clear()
    more = f"more: {{command: PROGRAM {c}, ports: [{c}]}}\n"
    changed = text.replace("WORD: first", "WORD: second").rstrip() + f"\n{' ' * 10}{more}"
    ran = run("up", str(mesh(changed)), "--detach")
    assert ran.code == 0, ran.err
    assert agent.pids("back") == back
    assert not set(agent.pids("front")) & set(fronts)
    assert len(agent.pids("front")) == 2
    assert [k[2] for k in backend.objects] == ["two"]
    order = [call for call in agent.calls if "front" in call[1]]
    assert [what for what, _ in order] == ["launch", "stop", "launch", "stop"]

    pids = agent.pids()
    ran = run("down")
    assert ran.code == 0, ran.err
    assert not any(alive(pid) for pid in pids)
    assert not agent.pids()
    stops = [name for what, name in agent.calls if what == "stop"]
    assert stops.index("default/back-0") > max(i for i, n in enumerate(stops) if "front" in n)
    assert supervisor(run) == 0


@pytest.mark.parametrize("policy", ["no", "on-failure"])
def test_a_program_that_ends_at_once_fails_in_one_line_and_leaves_nothing(
    run: Run, mesh: Mesh, agent: FakeAgent, policy: str, tmp_path: Path
) -> None:
    port = free_port()
    file = mesh(
        f"""
        services:
          good: {{command: PROGRAM {port}, ports: [{port}]}}
          bad:
            command: [sh, -c, "echo no such database; exit 3"]
            ports: [1]
            depends_on: [good]
            restart: {policy}
        """
    )
    ran = run("up", str(file), "--detach")
    assert ran.code == 1
    last = ran.err.splitlines()[-1]
    assert last.startswith("retia: service bad: bad-0 exited with status 3 after")
    assert "saying: no such database; its log is" in last
    assert not agent.pids()
    assert supervisor(run) == 0
    assert len([n for w, n in agent.calls if w == "launch" and "bad" in n]) == (1 if policy == "no" else 3)


def test_a_command_that_does_not_exist_stops_everything_before_it_begins(
    run: Run, mesh: Mesh, agent: FakeAgent
) -> None:
    ran = run("up", str(mesh("services: {web: {command: no-such-program}}")), "--detach")
    assert ran.code == 1
    assert "retia.yaml:1: services.web.command: there is no program 'no-such-program' in PATH" in ran.err
    assert not agent.calls


def test_a_port_in_use_is_said(run: Run, mesh: Mesh, agent: FakeAgent) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        ran = run(
            "up", str(mesh(f"services: {{web: {{command: PROGRAM {port}, ports: [{port}]}}}}")), "--detach"
        )
    assert ran.code == 1
    assert ran.err.splitlines()[-1] == (
        f"retia: service web: 127.0.0.1:{port} is in use by another program on this machine, and explicit "
        f"capture cannot share ports; let the program listen on ${{port:{port}}}, or free the port"
    )


def test_an_agents_refusal_is_passed_on(run: Run, mesh: Mesh, agent: FakeAgent) -> None:
    agent.refuse = "no room"
    ran = run("up", str(mesh("services: {web: {command: sleep 60}}")), "--detach")
    assert ran.err.splitlines()[-1] == "retia: service web: the agent refused web-0: no room"


def test_a_change_that_fails_is_taken_back(
    run: Run, mesh: Mesh, agent: FakeAgent, backend: FakeBackend
) -> None:
    port = free_port()
    good = f'services: {{web: {{command: "PROGRAM ${{port:{port}}}", ports: [{port}]}}}}'
    assert run("up", str(mesh(good)), "--detach").code == 0
    pids = agent.pids("web")
    ran = run("up", str(mesh(good.replace('"PROGRAM', '"false'))), "--detach")
    assert ran.code == 1
    assert "exited with status 1" in ran.err
    assert "taking the change back" in ran.err
    assert agent.pids("web") == pids


def test_wrong_configuration_starts_nothing(run: Run, mesh: Mesh, agent: FakeAgent, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("bad: true")
    ran = run("up", str(mesh("config: c.yaml\nservices: {web: {command: sleep 60}}")), "--detach")
    assert ran.code == 1
    assert "the mesh file's configuration is wrong:" in ran.err.splitlines()[-1]
    assert f"{tmp_path}/c.yaml:3" in ran.err
    assert not agent.calls


def test_a_program_that_dies_is_started_again(run: Run, mesh: Mesh, agent: FakeAgent) -> None:
    port = free_port()
    file = mesh(f"services: {{web: {{command: PROGRAM {port}, ports: [{port}], restart: on-failure}}}}")
    assert run("up", str(file), "--detach").code == 0
    (pid,) = agent.pids("web")
    os.kill(pid, signal.SIGKILL)
    until(lambda: agent.pids("web") not in ([], [pid]), "it runs again")


def test_a_program_that_does_its_work_and_ends_is_done_once(run: Run, mesh: Mesh, agent: FakeAgent) -> None:
    text = "services: {{job: {{command: echo {}}}, next: {{command: sleep 60, depends_on: [job]}}}}"
    ran = run("up", str(mesh(text.format("one"))), "--detach")
    assert (ran.code, "job-0 has done its work" in ran.err) == (0, True), ran.err
    assert "nothing to change" in run("up", str(mesh(text.format("one"))), "--detach").err
    ran = run("up", str(mesh(text.format("two"))), "--detach")
    assert "1 to replace" in ran.err
    assert [name for what, name in agent.calls if what == "launch" and "job" in name] == ["default/job-0"] * 2


def test_down_cleans_up_after_a_supervisor_that_was_killed(run: Run, mesh: Mesh, agent: FakeAgent) -> None:
    port = free_port()
    assert (
        run("up", str(mesh(f"services: {{web: {{command: PROGRAM {port}, ports: [{port}]}}}}")), "-d").code
        == 0
    )
    (pid,) = agent.pids("web")
    boss = supervisor(run)
    os.kill(boss, signal.SIGKILL)
    until(lambda: supervisor(run) == 0, "it is gone")
    assert alive(pid)
    ran = run("down")
    assert "stopping default/web-0" in ran.err
    assert not alive(pid)


def test_without_a_mesh_file_it_needs_one_to_change_a_mesh(
    run: Run, mesh: Mesh, agent: FakeAgent, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    assert run("up", "--detach").code == 0
    ran = run("up")
    assert ran.code == 1
    assert "the mesh runs already" in ran.err


def test_down_with_nothing_running_succeeds(run: Run, home: Path) -> None:
    ran = run("down")
    assert (ran.code, ran.err) == (0, f"nothing is running for {home}\n")
