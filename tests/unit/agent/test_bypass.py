"""Bypasses: begun, kept, ended in time, refused; and where calls go meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path
from typing import Any, cast

import pytest

from retia.agent.bypass import KIND, Bypasses
from retia.agent.capture import Capture, fallbacks
from retia.agent.names import Entry
from retia.agent.records import Instance, Record
from retia.agent.state import State
from retia.api.local import LocalError
from retia.node.errors import CaptureError


class Switches:
    """In place of the kernel: what was switched."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, bool]] = []
        self.broken = False

    def set_bypass(self, workload: str, value: bool, fail_open: bool) -> None:
        if self.broken:
            raise CaptureError("no such instance")
        self.calls.append((workload, value))


def instance(capture: str = "ebpf", **annotations: str) -> Instance:
    fields: dict[str, Any] = {
        "id": "default/web-1",
        "namespace": "default",
        "number": 1,
        "service": "web",
        "service_account": "web",
        "pid": 1,
        "stamp": 1,
        "uid": 0,
        "gid": 0,
        "capture": capture,
        "reason": "",
        "annotations": {f"retia.dev/{name}": value for name, value in annotations.items()},
        "published_address": "127.64.0.1",
        "app_address": "127.65.0.1",
    }
    return Instance(Record.model_validate(fields))


@pytest.fixture
def state(tmp_path: Path) -> State:
    return State(tmp_path / "state.sqlite")


def bypasses(state: State, mine: Instance) -> tuple[Bypasses, Switches]:
    switches = Switches()
    return Bypasses(state, cast(Capture, switches), {mine.id: mine}), switches


def test_it_begins_and_ends(state: State) -> None:
    mine = instance()
    found, switches = bypasses(state, mine)
    entry = found.begin(mine, 60, "loops", 1000)
    state.write_now()
    assert 59 < entry.until - time.time() <= 60
    assert state.entries(KIND)[mine.id]["reason"] == "loops"
    found.end(mine.id, "a test")
    state.write_now()
    assert switches.calls == [(mine.id, True), (mine.id, False)]
    assert not state.entries(KIND)
    assert found.get(mine.id) is None


async def test_it_ends_by_itself(state: State) -> None:
    mine = instance()
    found, switches = bypasses(state, mine)
    found.begin(mine, 0, "", 0)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.2):
            await found.run()
    assert found.get(mine.id) is None
    assert switches.calls[-1] == (mine.id, False)


def test_a_new_worker_takes_it_over(state: State) -> None:
    mine = instance()
    bypasses(state, mine)[0].begin(mine, 60, "", 0)
    state.write_now()
    found, switches = bypasses(state, mine)
    found.restore()
    assert found.get(mine.id) is not None
    assert switches.calls == [(mine.id, True)]


def test_one_whose_time_is_over_is_not_taken_over(state: State) -> None:
    mine = instance()
    bypasses(state, mine)[0].begin(mine, 0, "", 0)
    state.write_now()
    found, switches = bypasses(state, mine)
    found.restore()
    assert (found.get(mine.id), switches.calls) == (None, [])


def test_one_that_the_kernel_refuses_ends(state: State) -> None:
    mine = instance()
    bypasses(state, mine)[0].begin(mine, 60, "", 0)
    state.write_now()
    found, switches = bypasses(state, mine)
    switches.broken = True
    found.restore()
    state.write_now()
    assert (found.get(mine.id), state.entries(KIND)) == (None, {})


@pytest.mark.parametrize(
    ("mine", "code"),
    [(instance(bypass="forbidden"), "denied"), (instance("explicit"), "conflict")],
    ids=["forbidden", "not captured"],
)
def test_it_is_refused(state: State, mine: Instance, code: str) -> None:
    found, switches = bypasses(state, mine)
    with pytest.raises(LocalError) as caught:
        found.begin(mine, 60, "", 0)
    assert (caught.value.code, switches.calls) == (code, [])


def test_calls_go_to_an_instance_of_this_host_or_outside_the_mesh() -> None:
    entries = [
        Entry("reviews", "240.240.0.1", ((9080, "http"),), ("127.64.0.7:9080",)),
        Entry("elsewhere", "240.240.0.2", ((80, "http"),), ("127.64.0.7:80",)),
        Entry("db", "240.240.0.3", ((5432, "tcp"),), ("10.0.0.5:5433",)),
    ]
    nearest = {("reviews", 9080): ("127.64.0.3", 9080)}
    assert fallbacks(entries, nearest) == {
        ("240.240.0.1", 9080): ("127.64.0.3", 9080),
        ("240.240.0.3", 5432): ("10.0.0.5", 5433),
    }
