# ruff: noqa: ASYNC110 (what is waited for is outside this process; files are small)
"""The keeper with real processes: it keeps sockets, restarts what dies, adopts, and ends everything."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from retia.agent import keeper as module
from retia.agent.keeper import KeeperError, Process, Spec, pause_s, start_stamp
from retia.agent.keeping import KeeperClient, ProcessEvent, Program

SOURCE = Path(module.__file__).parent.parent.parent


class Kept:
    """A running keeper and a connection to it."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self.events: asyncio.Queue[ProcessEvent] = asyncio.Queue()
        self.process: asyncio.subprocess.Process | None = None
        self.client: KeeperClient | None = None

    async def start(self, *worker: str) -> KeeperClient:
        env = {**os.environ, "PYTHONPATH": str(SOURCE)}
        argv = [sys.executable, "-m", "retia.agent.keeper", str(self.run), *worker]
        self.process = await asyncio.create_subprocess_exec(*argv, env=env, stderr=subprocess.DEVNULL)
        return await self.connect()

    async def connect(self) -> KeeperClient:
        async with asyncio.timeout(10):
            while True:
                try:
                    self.client = await KeeperClient.connect(self.run)
                except KeeperError:
                    await asyncio.sleep(0.01)
                else:
                    self.client.on_process = self.events.put_nowait
                    return self.client

    async def event(self, name: str, ended: bool) -> ProcessEvent:
        async with asyncio.timeout(10):
            while True:
                event = await self.events.get()
                if (event.name, event.ended) == (name, ended):
                    return event

    async def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        await self.process.wait()

    async def stop(self) -> int:
        if self.client is not None:
            self.client.close()
        if self.process is None:
            return 0
        with contextlib.suppress(ProcessLookupError):
            self.process.terminate()
        return await asyncio.wait_for(self.process.wait(), 15)


@pytest.fixture
async def kept() -> AsyncIterator[Kept]:
    with tempfile.TemporaryDirectory(prefix="retia-") as folder:
        made = Kept(Path(folder))
        yield made
        await made.stop()


def sleeper(name: str = "sleeper", **fields: object) -> Program:
    return Program(name, ["/bin/sleep", "300"], **fields)  # type: ignore[arg-type]


def test_only_the_standard_library_is_imported() -> None:
    code = (
        "import sys, retia.agent.keeper;"
        "bad = [m for m in sys.modules if m.split('.')[0] not in sys.stdlib_module_names"
        " and not m.startswith(('retia', '__', '_distutils', 'sitecustomize', '_virtualenv', '_editable'))];"
        "print([m for m in sys.modules if m.startswith('retia')], [m for m in bad if '.pth' not in m])"
    )
    env = {"PYTHONPATH": str(SOURCE), "PATH": os.defpath}
    output = subprocess.run([sys.executable, "-S", "-c", code], env=env, capture_output=True, text=True)
    assert output.stdout.strip() == "['retia', 'retia.agent', 'retia.agent.keeper'] []", output.stderr


def test_pauses_grow() -> None:
    assert [pause_s(n) for n in range(1, 9)] == [0.0, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0]


async def test_a_socket_is_held_for_the_next_worker(kept: Kept) -> None:
    client = await kept.start()
    path = kept.run / "a.sock"
    first = await client.open_unix(path)
    caller = socket.socket(socket.AF_UNIX)
    caller.connect(str(path))
    caller.sendall(b"while nobody is there")
    first.close()
    client.close()
    second = await (await kept.connect()).open_unix(path)
    connection, _ = await asyncio.get_running_loop().sock_accept(second)
    assert connection.recv(100) == b"while nobody is there"
    for sock in (caller, second, connection):
        sock.close()


async def test_datagrams_wait(kept: Kept) -> None:
    client = await kept.start()
    sock = await client.open_udp("127.0.0.1", 0)
    where = sock.getsockname()
    sock.close()
    with socket.socket(type=socket.SOCK_DGRAM) as caller:
        caller.sendto(b"question", where)
    again = await client.open_udp("127.0.0.1", 0)
    assert again.getsockname() == where
    assert await asyncio.get_running_loop().sock_recv(again, 100) == b"question"
    again.close()


async def test_a_port_in_use_is_said(kept: Kept) -> None:
    client = await kept.start()
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(KeeperError, match="Address already in use"):
            await client.open_tcp("127.0.0.1", other.getsockname()[1])


async def test_a_lock_is_taken_once(kept: Kept) -> None:
    client = await kept.start()
    name = f"retia-test-{os.getpid()}"
    await client.take_lock(name)
    await client.take_lock(name)
    other = socket.socket(socket.AF_UNIX)
    with pytest.raises(OSError, match="in use"):
        other.bind(f"\0{name}")
    other.close()


async def test_a_process_is_started_and_stopped(kept: Kept) -> None:
    client = await kept.start()
    pid = await client.spawn(sleeper())
    assert start_stamp(pid)
    with pytest.raises(KeeperError, match="runs already"):
        await client.spawn(sleeper())
    await client.stop("sleeper")
    assert (await kept.event("sleeper", ended=True)).status == -signal.SIGTERM
    assert await client.processes() == {}


async def test_a_deaf_process_is_killed(kept: Kept) -> None:
    client = await kept.start()
    source = "import signal,time; signal.signal(15, signal.SIG_IGN); print(1, flush=True); time.sleep(60)"
    log = kept.run / "log"
    await client.spawn(Program("deaf", [sys.executable, "-c", source], log=str(log)))
    async with asyncio.timeout(10):
        while not log.exists() or not log.read_text():
            await asyncio.sleep(0.01)
    await client.stop("deaf", 0.1)
    assert (await kept.event("deaf", ended=True)).status == -signal.SIGKILL


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (Program("p", ["/nowhere/program"]), "can't execute /nowhere/program: No such file"),
        (sleeper(cgroup="/nowhere/cgroup.procs"), "can't enter the cgroup /nowhere"),
        (sleeper(cwd="/nowhere"), "can't enter /nowhere"),
        (Program("p", []), "argv must be a list"),
    ],
    ids=["no program", "no cgroup", "no folder", "no argv"],
)
async def test_what_can_not_start_is_said(kept: Kept, program: Program, message: str) -> None:
    client = await kept.start()
    with pytest.raises(KeeperError, match=message):
        await client.spawn(program)
    assert await client.processes() == {}


async def test_what_dies_is_started_again(kept: Kept) -> None:
    client = await kept.start()
    first = await client.spawn(sleeper(restart=True))
    os.kill(first, signal.SIGKILL)
    ended = await kept.event("sleeper", ended=True)
    assert (ended.status, ended.restarting) == (-signal.SIGKILL, True)
    started = await kept.event("sleeper", ended=False)
    assert started.restarts == 1
    assert started.pid != first


async def test_the_worker_is_started_again(kept: Kept) -> None:
    await kept.start("/bin/sleep", "300")
    assert kept.client is not None
    first = (await kept.client.processes())["worker"].pid
    os.kill(first, signal.SIGKILL)
    assert (await kept.event("worker", ended=False)).pid != first


async def test_wrong_settings_end_the_keeper(kept: Kept) -> None:
    run = ["/bin/sh", "-c", "sleep 0.2; exit 78"]
    await kept.start(*run)
    assert kept.process is not None
    assert await asyncio.wait_for(kept.process.wait(), 10) == 78


async def test_an_orderly_end_waits_for_the_worker_and_ends_the_rest(kept: Kept) -> None:
    client = await kept.start("/bin/sleep", "300")
    pid = await client.spawn(sleeper(restart=True))
    worker = (await client.processes())["worker"].pid
    assert kept.process is not None
    kept.process.terminate()
    await asyncio.wait_for(client.shutdown.wait(), 5)
    os.kill(worker, signal.SIGKILL)
    assert await asyncio.wait_for(kept.process.wait(), 15) == 0
    assert not start_stamp(pid)
    assert client.lost.is_set() or await asyncio.wait_for(client.lost.wait(), 5)
    assert not (kept.run / "keeper.sock").exists()


async def test_a_killed_keeper_leaves_processes_to_the_next(kept: Kept) -> None:
    client = await kept.start()
    pid = await client.spawn(sleeper(restart=True))
    dead = await client.spawn(sleeper("dead", restart=True))
    await kept.kill()
    client.close()
    os.kill(dead, signal.SIGKILL)
    client = await kept.start()
    async with asyncio.timeout(5):
        while len(found := await client.processes()) < 2 or not found["dead"].pid:
            await asyncio.sleep(0.01)
    assert found["sleeper"].pid == pid
    assert found["dead"].pid not in (0, dead), "what died meanwhile is started again"
    await client.stop("sleeper")
    await kept.event("sleeper", ended=True)
    assert not start_stamp(pid)


async def test_a_killed_keepers_sockets_are_given_to_the_next(kept: Kept) -> None:
    old = await kept.start()
    path = kept.run / "a.sock"
    stream, udp = await old.open_unix(path), await old.open_udp("127.0.0.1", 0)
    (await old.open_unix(kept.run / "closed.sock")).close()
    where = udp.getsockname()
    name = f"retia-test-{os.getpid()}"
    await old.take_lock(name)
    await kept.kill()
    with socket.socket(socket.AF_UNIX) as other, pytest.raises(OSError, match="in use"):
        other.bind(f"\0{name}")
    with socket.socket(type=socket.SOCK_DGRAM) as caller:
        caller.sendto(b"question", where)
    with pytest.raises(KeeperError, match="no keeper answers"):
        await old.hand_over(kept.run)
    new = await kept.start()
    await old.hand_over(kept.run)
    await old.hand_over(kept.run)  # once more, as after a call that broke
    for sock in (stream, udp):
        sock.close()
    old.close()
    await new.spawn(sleeper())
    taken = await new.open_udp("127.0.0.1", 0)
    assert taken.getsockname() == where
    assert await asyncio.get_running_loop().sock_recv(taken, 100) == b"question"
    listening = await new.open_unix(path)
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(str(path))
    taken.close()
    listening.close()
    await new.release(f"unix:{path}")
    assert not path.exists()
    await new.release("udp:127.0.0.1:0")
    with socket.socket(type=socket.SOCK_DGRAM) as caller:
        caller.bind(where)  # what was started meanwhile has no descriptor of it


async def test_the_next_worker_starts_when_the_one_before_has_ended(kept: Kept) -> None:
    client = await kept.start("/bin/sleep", "300")
    first = (await client.processes())["worker"].pid
    await kept.kill()
    client.close()
    client = await kept.start("/bin/sleep", "300")
    assert set(await client.processes()) == {module.FORMER_WORKER}
    os.kill(first, signal.SIGKILL)
    assert (await kept.event("worker", ended=False)).pid != first


async def test_a_worker_that_does_not_hand_over_is_killed(kept: Kept) -> None:
    client = await kept.start("/bin/sleep", "300")
    first = (await client.processes())["worker"].pid
    os.kill(first, signal.SIGSTOP)
    await kept.kill()
    client.close()
    await kept.start("/bin/sleep", "300")
    assert (await kept.event("worker", ended=False)).pid != first
    assert not start_stamp(first)


async def test_sweep_kills_what_a_dead_keeper_left(kept: Kept) -> None:
    client = await kept.start("/bin/sleep", "300")
    pid = await client.spawn(sleeper())
    worker = (await client.processes())["worker"].pid
    await kept.kill()
    assert await asyncio.to_thread(module.main, ["--sweep", str(kept.run)]) == 0
    assert not start_stamp(pid)
    assert not start_stamp(worker)


def test_a_zombie_is_gone() -> None:
    with subprocess.Popen(["/bin/true"]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert Path(f"/proc/{process.pid}").exists()
        assert start_stamp(process.pid) == 0


def test_a_reused_process_id_is_not_taken_for_the_old_process(tmp_path: Path) -> None:
    process = Process(Spec("self", ["x"]))
    process.pid, process.stamp, process.exe = os.getpid(), start_stamp(os.getpid()), "/bin/other"
    assert not module.is_same(process.pid, process.stamp, process.exe)
    assert not module.is_same(process.pid, process.stamp + 1, module.executable(os.getpid()))
    assert module.is_same(process.pid, process.stamp, module.executable(os.getpid()))


@pytest.mark.parametrize("content", ["", "{", "[]", '{"boot": "x"}', '{"boot": 1, "processes": [1]}'])
def test_a_damaged_record_is_no_record(tmp_path: Path, content: str) -> None:
    (tmp_path / "keeper.json").write_text(content)
    assert module.read_record(str(tmp_path)) == []


async def test_a_second_keeper_is_refused(kept: Kept, capfd: pytest.CaptureFixture[str]) -> None:
    await kept.start()
    assert kept.process is not None
    assert module.main([str(kept.run)]) == 1
    assert f"(process {kept.process.pid})" in capfd.readouterr().err


async def test_nonsense_ends_the_connection_and_no_more(kept: Kept) -> None:
    client = await kept.start()
    for packet in (
        b"\xff",
        b"{}",
        b"[]",
        b'{"id": 1}',
        b'{"id":1,"op":"open","key":3}',
        b'{"id":1,"op":"x"}',
    ):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as other:
            other.connect(str(kept.run / "keeper.sock"))
            other.sendall(packet)
            other.settimeout(5)
            assert other.recv(4096) == b"" or True
    assert await client.processes() == {}
