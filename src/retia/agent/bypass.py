"""A way out in an incident: a workload's own calls go around its proxy, for a bounded time.

Only what the workload calls goes another way: straight, in plaintext, to one instance of each service on this
host, or to an endpoint outside the mesh. Its rules, retries, mutual TLS and metrics are lost meanwhile, and a
callee that demands mutual TLS refuses it. Calls to the workload still come through its proxy. Connections
that stand already stay where they are.

A bypass is the agent's own affair: it begins and ends without a controller, is kept on disk, and one whose
time ran out while no agent was there ends when the next one starts. Beginning and end are logged with who
asked and why.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from retia.agent.capture import Capture
from retia.agent.records import Instance
from retia.agent.state import State
from retia.api.local import LocalError
from retia.model import annotation
from retia.node.errors import CaptureError

KIND = "bypass"
_log = structlog.get_logger("retia.agent.bypass")


@dataclass(frozen=True, slots=True)
class Entry:
    """One bypass. Times are seconds since 1970."""

    since: float
    until: float
    reason: str
    uid: int
    """Who asked."""

    def to_json(self) -> Any:
        return {"since": self.since, "until": self.until, "reason": self.reason, "uid": self.uid}

    @classmethod
    def from_json(cls, value: Any) -> Entry:
        return cls(float(value["since"]), float(value["until"]), str(value["reason"]), int(value["uid"]))


class Bypasses:
    """All bypasses of this host. ``instances`` are the workloads that are there now."""

    def __init__(self, state: State, capture: Capture, instances: Mapping[str, Instance]) -> None:
        self._state = state
        self._capture = capture
        self._instances = instances
        self._entries: dict[str, Entry] = {}
        self._changed = asyncio.Event()

    def get(self, workload: str) -> Entry | None:
        return self._entries.get(workload)

    def restore(self) -> None:
        """Take over what an earlier worker began; what has ended meanwhile is ended."""
        for workload, value in self._state.entries(KIND).items():
            entry = Entry.from_json(value)
            if not self._taken_over(workload, entry):
                self._state.remove_entry(KIND, workload)

    def begin(self, instance: Instance, seconds: int, reason: str, uid: int) -> Entry:
        """Begin, or extend. Raises :class:`~retia.api.local.LocalError`."""
        record = instance.record
        if record.annotations.get(annotation.BYPASS) == "forbidden":
            message = f"workload {record.id} forbids it ({annotation.BYPASS}: forbidden)"
            raise LocalError("denied", message)
        if record.capture != "ebpf" or record.gateway:
            message = f"the traffic of {record.id} is not captured by the kernel"
            raise LocalError("conflict", message, "take its proxy variables away instead")
        now = time.time()
        entry = Entry(now, now + seconds, reason, uid)
        try:
            self._apply(record.id, True)
        except (CaptureError, OSError) as error:
            raise LocalError("unavailable", f"{record.id} can't go around its proxy: {error}") from error
        self._entries[record.id] = entry
        self._state.put_entry(KIND, record.id, entry.to_json())
        self._changed.set()
        _log.warning("bypass begun", workload=record.id, seconds=seconds, uid=uid, reason=reason)
        return entry

    def end(self, workload: str, why: str) -> None:
        """End it, if there is one. Never raises."""
        entry = self._entries.pop(workload, None)
        if entry is None:
            return
        self._state.remove_entry(KIND, workload)
        if workload in self._instances:
            with contextlib.suppress(CaptureError, OSError):
                self._apply(workload, False)
        _log.warning("bypass ended", workload=workload, why=why, began=entry.since, reason=entry.reason)

    def _taken_over(self, workload: str, entry: Entry) -> bool:
        if workload not in self._instances or entry.until <= time.time():
            return False
        try:
            self._apply(workload, True)
        except (CaptureError, OSError) as error:
            _log.error("a bypass can't go on", workload=workload, error=str(error))
            return False
        self._entries[workload] = entry
        return True

    async def run(self) -> None:
        """End each in time, until cancelled."""
        while True:
            self._changed.clear()
            now = time.time()
            for workload, entry in list(self._entries.items()):
                if entry.until <= now:
                    self.end(workload, "its time is over")
            next_end = min((entry.until for entry in self._entries.values()), default=now + 3600.0)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, next_end - now)):
                    await self._changed.wait()

    def _apply(self, workload: str, value: bool) -> None:
        record = self._instances[workload].record
        fail_open = record.annotations.get(annotation.FAIL_OPEN, "") == "true"
        self._capture.set_bypass(workload, value, fail_open)
