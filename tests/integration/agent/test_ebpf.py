# ruff: noqa: ASYNC220, ASYNC240 (starting a program and looking at a folder take no time)
"""The main path under eBPF capture: names, shared ports, hidden ports, health checks, kills."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from retia.api.local import Done, HealthCheck, Launched, PortSpec, Stop
from retia.node.cgroups import find_cgroup2, scope_name
from tests.integration.agent.fakes import FakeController
from tests.integration.agent.hosts import AgentUnderTest, Program, free_index
from tests.support.waiting import until

pytestmark = pytest.mark.privileged
CALL = """
import sys, urllib.request, urllib.error
for line in sys.stdin:
    try:
        with urllib.request.urlopen(line.strip(), timeout=6) as answer:
            print(answer.status, answer.read().decode(), flush=True)
    except urllib.error.HTTPError as error:
        print(error.code, error.read().decode().strip(), flush=True)
    except OSError as error:
        print("error", error, flush=True)
"""
STARTER = (
    "import os,sys; sys.stdin.readline(); os.execv(sys.executable, [sys.executable, '-uc', sys.argv[1]])"
)


class Caller:
    """A program in the mesh that calls what it is told to call."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-uc", STARTER, CALL],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def go(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")

    async def get(self, url: str) -> str:
        def call() -> str:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.write(url + "\n")
            return self._process.stdout.readline().strip()

        return await asyncio.to_thread(call)

    def __enter__(self) -> Caller:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()


@pytest.fixture
async def agent(controller: FakeController) -> AsyncIterator[AgentUnderTest]:
    index = free_index()
    async with AgentUnderTest(controller.address, controller.token, "--capture", "ebpf", index=index) as it:
        yield it
    assert not (find_cgroup2() / scope_name(index)).exists(), "no cgroup is left"
    assert not Path("/sys/fs/bpf", scope_name(index)).exists(), "no pin is left"


async def serve(
    agent: AgentUnderTest, program: Program, service: str, health: HealthCheck | None = None
) -> Launched:
    ports = (PortSpec(number=9080, protocol="http"),)
    launched = await agent.launch(program.pid, service=service, ports=ports, health=health)
    program.go()
    return launched


async def test_two_instances_on_one_port(controller: FakeController, agent: AgentUnderTest) -> None:
    with (
        Program("9080", WHO="a", BIND="0.0.0.0") as first,
        Program("9080", WHO="b", BIND="0.0.0.0") as second,
        Caller() as caller,
    ):
        one = await serve(agent, first, "reviews")
        await serve(agent, second, "reviews")
        launched = await agent.launch(caller.pid, name="curl")
        assert launched.capture == "ebpf"
        assert "HTTP_PROXY" not in launched.env
        caller.go()
        await controller.until(
            lambda: sum(p.listening for w in controller.workloads.values() for p in w.ports) == 2
        )

        async def resolves() -> bool:
            return (await caller.get("http://reviews:9080/x")).startswith("200")

        await until(resolves)
        answers = {await caller.get(f"http://{name}:9080/x") for name in SPELLINGS for _ in range(6)}
        assert answers == {"200 a /x", "200 b /x"}
        assert await caller.get("http://127.0.0.1:9080/") != "200 a /", "its own localhost, not another's"

        stranger = socket.socket()
        stranger.settimeout(0.3)
        with pytest.raises(TimeoutError):
            stranger.connect((one.app_address, 9080))
        stranger.close()

        worker_before = await agent.worker_pid()
        await agent.kill_worker()
        assert await agent.worker_pid() != worker_before
        assert (await caller.get("http://reviews:9080/x")).startswith("200")
        await controller.stop()
        assert (await caller.get("http://reviews.default:9080/x")).startswith("200"), (
            "names without controller"
        )
        await controller.start()
        await controller.until(lambda: len(controller.sessions) == 1)

        first.end()
        await controller.until(lambda: len(controller.workloads) == 2)

        async def left() -> bool:
            """The controller knows before the caller's proxy does."""
            return {await caller.get("http://reviews:9080/x") for _ in range(6)} == {"200 b /x"}

        await until(left)


SPELLINGS = ("reviews", "reviews.default", "reviews.default.svc", "reviews.default.svc.cluster.local")


@pytest.mark.parametrize("kind", ["http", "tcp", "exec"])
async def test_health_checks(
    controller: FakeController, agent: AgentUnderTest, tmp_path: Path, kind: str
) -> None:
    sick = tmp_path / "sick"
    command = (
        sys.executable,
        "-c",
        "import urllib.request,os; urllib.request.urlopen('http://127.0.0.1:9080/'+os.environ['WHO'])",
    )
    check = HealthCheck(
        kind=kind,  # type: ignore[arg-type]
        path="/health",
        command=command if kind == "exec" else (),
        interval_s=0.2,
        timeout_s=3.0,
        unhealthy_threshold=2,
    )
    with Program("9080", WHO="a", BIND="0.0.0.0", SICK=str(sick)) as program:
        await serve(agent, program, "reviews", check)
        await controller.until(lambda: _healthy(controller))
        if kind == "tcp":
            return
        sick.touch()
        await controller.until(lambda: not _healthy(controller))
        (info,) = await agent.workloads()
        assert (info.state, info.healthy) == ("unhealthy", False)
        (proxy,) = await agent.proxies()
        assert proxy.state == "ready", "its proxy still accepts"
        sick.unlink()
        await controller.until(lambda: _healthy(controller))


def _healthy(controller: FakeController) -> bool:
    return any(w.healthy for w in controller.workloads.values())


async def test_stop_drains_first(controller: FakeController, agent: AgentUnderTest) -> None:
    with Program("9080", WHO="a", BIND="0.0.0.0") as program:
        launched = await serve(agent, program, "reviews")
        await controller.until(lambda: _healthy(controller))
        stop = asyncio.create_task(agent.call(Stop(workload=launched.workload, drain_s=0.5), Done))
        await controller.until(lambda: not _healthy(controller) and bool(controller.workloads))
        assert program.process.poll() is None, "the program goes on while callers hear of it"
        await stop
        assert program.process.wait(5) == -signal.SIGTERM
    assert await agent.workloads() == ()
    assert await agent.proxies() == ()


async def test_a_program_that_goes_into_the_background_lives_on(
    controller: FakeController, agent: AgentUnderTest
) -> None:
    source = """
import os, time
if os.fork():
    os._exit(0)
os.setsid()
open(os.environ["PIDFILE"] + ".new", "w").write(str(os.getpid()))
os.rename(os.environ["PIDFILE"] + ".new", os.environ["PIDFILE"])
time.sleep(60)
"""
    pidfile = agent.home / "pid"
    with Program(source=source, PIDFILE=str(pidfile)) as program:
        await agent.launch(program.pid, name="daemon")
        program.go()
        program.process.wait(5)

        async def written() -> bool:
            return pidfile.exists()

        await until(written)
        child = int(pidfile.read_text())
        await asyncio.sleep(0.2)
        assert len(await agent.workloads()) == 1
        os.kill(child, signal.SIGKILL)

        async def gone() -> bool:
            return not await agent.workloads()

        await until(gone)


async def test_dns_beside_the_mesh(controller: FakeController, agent: AgentUnderTest) -> None:
    source = """
import socket, sys
try:
    print(socket.getaddrinfo("localhost", 80)[0][4][0], flush=True)
    socket.getaddrinfo("nobody.default.svc.cluster.local", 80)
except OSError as error:
    print(error.errno, flush=True)
"""
    process = subprocess.Popen(
        [sys.executable, "-uc", STARTER, source], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with contextlib.closing(process.stdout):  # type: ignore[arg-type]
        await agent.launch(process.pid, name="resolver")
        output, _ = await asyncio.to_thread(process.communicate, "\n", 10)
    assert output.splitlines()[0] in ("127.0.0.1", "::1")
    assert output.splitlines()[1] == str(socket.EAI_NONAME)
