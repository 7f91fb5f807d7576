"""The controller as a process: how it starts, why it does not, and how it ends."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from retia.cli.tour.stage import free_port
from tests.integration.control.conftest import RunningController
from tests.support.waiting import until


@pytest.fixture
def home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="retia-", dir="/tmp") as path:
        yield Path(path)


class Process:
    def __init__(self, home: Path) -> None:
        self.home = home
        self.port = free_port()
        self.process: asyncio.subprocess.Process

    async def start(self, *arguments: str) -> None:
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "retia.control.main",
            "--home",
            str(self.home),
            "--port",
            str(self.port),
            "--metrics-port",
            str(free_port()),
            *arguments,
            stderr=asyncio.subprocess.PIPE,
        )

    async def refusal(self, *arguments: str) -> str:
        """What it says when it doesn't start."""
        await self.start(*arguments)
        async with asyncio.timeout(20):
            _, said = await self.process.communicate()
        assert self.process.returncode == 1, said
        (sentence,) = (line for line in said.decode().splitlines() if line.startswith("retia controller:"))
        return sentence.removeprefix("retia controller: ")

    async def serving(self) -> None:
        await until(lambda: (self.home / "run" / "api.sock").exists(), timeout_s=20)


@pytest.fixture
async def process(home: Path) -> AsyncIterator[Process]:
    made = Process(home)
    yield made
    if hasattr(made, "process") and made.process.returncode is None:
        made.process.kill()
        await made.process.wait()


async def test_it_ends_on_sigterm_and_leaves_no_socket(process: Process) -> None:
    await process.start()
    await process.serving()
    process.process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(10):
        assert await process.process.wait() == 0
    assert not (process.home / "run" / "api.sock").exists()


async def test_a_killed_one_is_followed_by_the_next(process: Process) -> None:
    await process.start()
    await process.serving()
    process.process.kill()
    await process.process.wait()
    running = RunningController(process.home)
    await running.start()
    assert (await running.api("GET", "/v1/status"))["ready"]
    await running.stop()


async def test_a_port_in_use_is_named(process: Process) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", process.port))
        taken.listen()
        sentence = await process.refusal()
    assert sentence == (
        f"the port for agents: 127.0.0.1:{process.port} is in use by another program; stop it, or choose "
        "another --index"
    )


async def test_a_second_controller_over_one_state_is_refused(process: Process, home: Path) -> None:
    running = RunningController(home)
    await running.start()
    try:
        assert "store.sqlite" in await process.refusal()
    finally:
        await running.stop()


async def test_a_damaged_store_is_left_and_named(process: Process, home: Path) -> None:
    state = home / "controller"
    state.mkdir(parents=True)
    (state / "store.sqlite").write_bytes(b"nonsense" * 1000)
    assert "store.sqlite" in await process.refusal()
    assert (state / "store.sqlite").read_bytes() == b"nonsense" * 1000


async def test_wrong_settings_are_one_sentence(process: Process) -> None:
    assert await process.refusal("--lease", "0") == "--lease 0: a lease is 0.3 to 3600 seconds"


async def test_another_trust_domain_is_not_taken_over(process: Process, home: Path) -> None:
    running = RunningController(home)
    await running.start()
    await running.stop()
    assert "other.domain" in await process.refusal("--trust-domain", "other.domain")


async def test_objects_in_a_watched_directory_are_followed(home: Path, tmp_path: Path) -> None:
    rule = "apiVersion: v1\nkind: Service\nmetadata: {name: %s}\nspec: {ports: [{port: 80, name: http}]}\n"
    (tmp_path / "a.yaml").write_text(rule % "one")
    running = RunningController(home, config=tmp_path)
    await running.start()

    async def services(*names: str) -> bool:
        found = (await running.api("GET", "/v1/services"))["items"]
        return {s["name"] for s in found} == set(names)

    try:
        assert await services("one")
        (tmp_path / "b.yaml").write_text(rule % "two")
        await until(lambda: services("one", "two"), timeout_s=10)
        (tmp_path / "a.yaml").unlink()
        await until(lambda: services("two"), timeout_s=10)
    finally:
        await running.stop()
