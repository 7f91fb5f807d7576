"""Certificates while time passes, and joins that fail."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path

import pytest

import retia
from retia.api.local import Admin, AdminReply, PortSpec
from retia.authority.authority import Authority
from retia.cli.tour.stage import free_port
from retia.identity.token import make_token
from tests.integration.agent.fakes import DOMAIN, FakeController
from tests.integration.agent.hosts import AgentUnderTest, Program, free_index, get


@pytest.fixture
async def short_lived(tmp_path: Path) -> AsyncIterator[FakeController]:
    fake = FakeController(tmp_path, lifetime=timedelta(seconds=8))
    await fake.start()
    yield fake
    await fake.stop()


async def test_certificates_are_renewed_under_load(short_lived: FakeController) -> None:
    controller = short_lived
    async with (
        AgentUnderTest(controller.address, controller.token, "--capture", "explicit") as agent,
        AsyncExitStack() as stack,
    ):
        port = free_port()
        server = stack.enter_context(Program(str(port), WHO="reviews"))
        client = stack.enter_context(Program("1"))
        ports = (PortSpec(number=9080, app_port=port, protocol="http"),)
        await agent.launch(server.pid, service="reviews", name="reviews", ports=ports)
        server.go()
        caller = await agent.launch(client.pid, name="curl")
        await controller.until(lambda: controller.workloads["default/reviews"].ports[0].listening)
        before = len(controller.signed)
        answers = []

        def renewed() -> bool:
            fresh = controller.signed[before:]
            return fresh.count("default/reviews") > 2 and fresh.count("host/h1") > 2

        async with asyncio.timeout(40):
            while not renewed():
                answers.append((await get(caller.env["http_proxy"], "http://reviews:9080/")).status_code)
                await asyncio.sleep(0.05)
        assert set(answers) == {200}


async def test_keys_are_nowhere_but_in_the_agents_folder(
    controller: FakeController, agent: AgentUnderTest
) -> None:
    with Program("1") as program:
        await agent.launch(program.pid, name="curl")
        for path in ("/config_dump", "/config_dump?include_eds", "/certs"):
            answer = await agent.call(Admin(proxy="default/curl", path=path), AdminReply)
            assert answer.status == 200
            assert "PRIVATE KEY" not in answer.body
        refused = await agent.call(Admin(proxy="default/curl", path="/quitquitquit"), AdminReply)
        assert refused.status == 403
        found = {
            p.relative_to(agent.home).as_posix(): p.stat().st_mode & 0o777
            for p in agent.home.rglob("*")
            if p.is_file() and b"PRIVATE KEY" in p.read_bytes()
        }
        assert found == {"agent/host.key": 0o600, "agent/keys/default.curl.key": 0o600}
    await controller.until(lambda: not controller.workloads)


def end_of(home: Path, controller: str, *arguments: str) -> tuple[int, str]:
    """Exit status and what is said of an agent that can't go on."""
    argv = [sys.executable, "-m", "retia.agent.main", "--home", str(home), "--controller", controller]
    argv += ["--index", str(free_index()), "--capture", "explicit", "--log-level", "error", *arguments]
    env = {"PYTHONPATH": str(Path(retia.__file__).parent.parent), "PATH": "/usr/bin:/bin"}
    result = subprocess.run(argv, capture_output=True, text=True, env=env, timeout=60)
    return result.returncode, result.stderr


async def test_joins_that_are_refused(controller: FakeController, tmp_path: Path) -> None:
    home = Path("/tmp") / f"retia-{tmp_path.name}"
    other = make_token(bytes(32), controller.authority.fingerprint, DOMAIN).encode()
    elsewhere = Authority.open(tmp_path / "elsewhere", DOMAIN, _now())
    foreign = make_token(bytes(32), elsewhere.fingerprint, DOMAIN).encode()
    cases = {
        "no token": ((), "this host has not joined a mesh: give --join TOKEN"),
        "damaged": (("--join", controller.token[:-3]), "the join token is"),
        "unknown": (("--join", other), "the controller refuses the join: the join token was not issued here"),
        "another mesh's": (("--join", foreign), "is not the one that made this join token"),
    }
    for words, (arguments, message) in cases.items():
        status, said = await asyncio.to_thread(end_of, home, controller.address, *arguments)
        assert (status, message in said, said.count("\n")) == (78, True, 1), (words, said)
    shutil.rmtree(home)


def _now():  # type: ignore[no-untyped-def]
    from datetime import UTC, datetime

    return datetime.now(UTC)
