# ruff: noqa: ASYNC110, ASYNC240 (what is waited for is outside this process; files are small)
"""What the agent keeps on disk: it comes back, and a bad disk harms nothing that runs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from retia.agent import state as module
from retia.agent.state import State
from retia.model.resource import Built, Name, Resource, TypeUrl
from retia.xds.wire import absent, encode

VHDS, CDS = TypeUrl.VIRTUAL_HOST, TypeUrl.CLUSTER


def host(name: str, content: str = "x", *aliases: str) -> Resource:
    refs = (Name(CDS, "outbound|80||a"),)
    return encode(VHDS, Built(name, content.encode(), (name, *aliases), refs, security=True))


@asynccontextmanager
async def running(path: Path) -> AsyncIterator[State]:
    state = State(path)
    task = asyncio.create_task(state.run())
    try:
        yield state
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        state.write_now()
        state.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.sqlite"


async def test_resources_come_back_whole(path: Path) -> None:
    kept = [host("80/a", "x", "80/b"), absent(CDS, "gone")]
    async with running(path) as state:
        for resource in kept:
            state.put("held", "default/a", resource)
        state.put("held", "default/b", host("80/c"))
    async with running(path) as state:
        found = state.held("default/a")
    assert sorted(found, key=lambda r: r.name) == sorted(kept, key=lambda r: r.name)


async def test_equal_bytes_are_stored_once(path: Path) -> None:
    async with running(path) as state:
        for number in range(50):
            state.put("held", f"default/{number}", host("80/a"))
        await state.flush()
        assert state._rows("SELECT count(*) FROM blob", ()) == [(1,)]
        for number in range(50):
            state.drop("held", f"default/{number}")
        await state.flush()
        assert state._rows("SELECT count(*) FROM blob", ()) == [(0,)]


@pytest.mark.parametrize("written", [False, True], ids=["not yet written", "written"])
async def test_standby_is_found_by_name_and_alias(path: Path, written: bool) -> None:
    async with running(path) as state:
        state.put("standby", "default/a", host("80/full", "x", "80/short"))
        if written:
            await state.flush()
        for name in ("80/full", "80/short"):
            found = state.standby("default/a", Name(VHDS, name))
            assert found is not None
            assert found.name == "80/full"
        assert state.standby("default/b", Name(VHDS, "80/full")) is None
        assert state.standby_names("default/a") == {Name(VHDS, "80/full")}
        state.remove("standby", "default/a", Name(VHDS, "80/full"))
        assert state.standby("default/a", Name(VHDS, "80/full")) is None
        if written:
            await state.flush()
        assert state.standby("default/a", Name(VHDS, "80/short")) is None


async def test_a_changed_alias_no_longer_leads_to_the_old_name(path: Path) -> None:
    async with running(path) as state:
        state.put("standby", "w", host("80/full", "x", "80/short"))
        await state.flush()
        state.put("standby", "w", host("80/full", "y"))
        await state.flush()
        assert state.standby("w", Name(VHDS, "80/short")) is None


async def test_what_was_dropped_and_put_again_is_there(path: Path) -> None:
    async with running(path) as state:
        state.put("held", "p", host("80/old"))
        await state.flush()
        state.drop("held", "p")
        state.put("held", "p", host("80/new"))
    async with running(path) as state:
        assert [r.name for r in state.held("p")] == ["80/new"]


async def test_entries(path: Path) -> None:
    async with running(path) as state:
        state.put_entry("workload", "a", {"n": 1})
        state.put_entry("workload", "b", [2])
        state.remove_entry("workload", "b")
    async with running(path) as state:
        assert state.entries("workload") == {"a": {"n": 1}}


async def test_a_file_damaged_before_the_start_is_put_aside(path: Path) -> None:
    path.write_bytes(b"this is no database" * 1000)
    async with running(path) as state:
        assert "was damaged" in state.problem
        state.put_entry("workload", "a", 1)
        await asyncio.wait_for(until_well(state), 5)
    assert path.with_suffix(".damaged").read_bytes().startswith(b"this is no")
    async with running(path) as state:
        assert state.entries("workload") == {"a": 1}


async def test_a_file_damaged_while_in_use_is_replaced_and_filled_again(path: Path) -> None:
    async with running(path) as state:
        state.put_entry("workload", "a", 1)
        await state.flush()
        state.refill = lambda: state.put_entry("workload", "a", 1)
        for name in (path, path.with_name("state.sqlite-wal")):
            name.write_bytes(b"\0garbage\0" * 4096)
        state.put_entry("workload", "b", 2)
        while not state.problem:
            await asyncio.sleep(0.01)
        await asyncio.wait_for(until_well(state), 5)
    async with running(path) as state:
        assert state.entries("workload") == {"a": 1, "b": 2}


async def test_a_removed_file_is_made_again(path: Path) -> None:
    async with running(path) as state:
        state.refill = lambda: state.put_entry("workload", "a", 1)
        path.unlink()
        state.put_entry("workload", "b", 2)
        while not state.problem:
            await asyncio.sleep(0.01)
        await asyncio.wait_for(until_well(state), 5)
        assert path.exists()


async def test_a_full_disk_is_said_and_survived(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.01)
    real, full = module._write, True

    def write(where: Path, batch: module._Batch) -> None:
        if full:
            raise OSError(28, "No space left on device")
        real(where, batch)

    monkeypatch.setattr(module, "_write", write)
    async with running(path) as state:
        state.put("standby", "w", host("80/a"))
        while not state.problem:
            await asyncio.sleep(0.01)
        assert "No space left on device" in state.problem
        assert state.standby("w", Name(VHDS, "80/a")) is not None, "in memory"
        full = False
        await asyncio.wait_for(until_well(state), 5)
    async with running(path) as state:
        assert state.standby("w", Name(VHDS, "80/a")) is not None


async def test_a_newer_schema_is_not_touched(path: Path) -> None:
    async with running(path) as state:
        state.put_entry("workload", "a", 1)
        await state.flush()
    import sqlite3

    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE meta SET value = '99' WHERE key = 'schema'")
    connection.close()
    async with running(path) as state:
        assert "newer version" in state.problem
    assert path.with_suffix(".damaged").exists()


async def until_well(state: State) -> None:
    while state.problem:
        await asyncio.sleep(0.01)
