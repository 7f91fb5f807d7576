"""What workloads' processes do: whether they live, and where they listen.

A process is watched by its pidfd, which tells its end at once and can't mistake another process for it. Under
eBPF capture a workload is all processes of its cgroup: when the first ends and others live on (a server that
puts itself into the background), one of those is watched next.

Listeners are read from the kernel for all workloads together, often while somebody is expected to begin to
listen and less often otherwise.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterable

import structlog

from retia.agent.keeper import start_stamp
from retia.agent.records import Instance
from retia.node.listening import Listeners, fetch_listeners

FAST_S = 0.05
SLOW_S = 0.25
EXPECT_S = 30.0
"""How long after its launch a silent workload is looked at often."""
_log = structlog.get_logger("retia.agent.watch")


class ProcessGone(Exception):  # noqa: N818
    """There is no such process (any more)."""


class ProcessWatch:
    """Watches processes; ``ended`` is called with the workload's id once for each."""

    def __init__(self, others: Callable[[str], Iterable[int]], ended: Callable[[str], None]) -> None:
        self._others = others
        self._ended = ended
        self._pidfds: dict[str, int] = {}
        self._loop = asyncio.get_running_loop()

    def add(self, workload: str, pid: int, stamp: int) -> None:
        """Watch process ``pid``, which must have begun at ``stamp``. Raises :class:`ProcessGone`."""
        try:
            pidfd = os.pidfd_open(pid)
        except OSError as error:
            raise ProcessGone(f"process {pid} is gone") from error
        if stamp and start_stamp(pid) != stamp:
            os.close(pidfd)
            raise ProcessGone(f"process {pid} is another one now")
        self.remove(workload)
        self._pidfds[workload] = pidfd
        self._loop.add_reader(pidfd, self._on_end, workload)

    def remove(self, workload: str) -> None:
        pidfd = self._pidfds.pop(workload, None)
        if pidfd is not None:
            self._loop.remove_reader(pidfd)
            os.close(pidfd)

    def signal(self, workload: str, number: signal.Signals) -> None:
        """Send a signal to all of a workload's processes; those that are gone are passed over."""
        pidfd = self._pidfds.get(workload)
        if pidfd is not None:
            try:
                signal.pidfd_send_signal(pidfd, number)
            except ProcessLookupError:
                pass
            except PermissionError:
                _log.error("a workload's process may not be ended by this user", workload=workload)
        for pid in self._others(workload):
            try:
                os.kill(pid, number)
            except (ProcessLookupError, PermissionError):
                continue

    def close(self) -> None:
        for workload in list(self._pidfds):
            self.remove(workload)

    def _on_end(self, workload: str) -> None:
        self.remove(workload)
        for pid in self._others(workload):
            try:
                self.add(workload, pid, 0)
            except ProcessGone:
                continue
            return
        self._ended(workload)


class ListenWatch:
    """Keeps :attr:`Instance.listening` in step with the kernel; ``changed`` is called for each difference."""

    def __init__(
        self, instances: Callable[[], Iterable[Instance]], changed: Callable[[Instance], None]
    ) -> None:
        self._instances = instances
        self._changed = changed
        self._wake = asyncio.Event()

    def hurry(self) -> None:
        """Look now: somebody came."""
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            watched = [i for i in self._instances() if i.record.ports and i.state != "starting"]
            if watched:
                self._look(watched, fetch_listeners())
            try:
                async with asyncio.timeout(self._pause_s(watched)):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()

    def _pause_s(self, watched: list[Instance]) -> float:
        if not watched:
            return 5.0
        now = time.monotonic()
        eager = any(len(i.listening) < len(i.record.ports) and now - i.since < EXPECT_S for i in watched)
        return FAST_S if eager else SLOW_S

    def _look(self, watched: list[Instance], listeners: Listeners) -> None:
        for instance in watched:
            explicit = instance.record.capture == "explicit"
            found = {
                port.number
                for port in instance.record.ports
                if listeners.has(instance.listen_address, port.app_port or port.number, wildcard=explicit)
            }
            if found != instance.listening:
                instance.listening = found
                self._changed(instance)
