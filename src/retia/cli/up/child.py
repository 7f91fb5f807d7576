"""A child process whose end is noticed without a thread: by pidfd, on the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path


class Child:
    """A process that this one started. Its exit status is collected as soon as it ends."""

    def __init__(self, process: subprocess.Popen[bytes], name: str) -> None:
        self.name = name
        self.pid = process.pid
        self.started = time.monotonic()
        self.ended = asyncio.Event()
        self._process = process
        self._loop = asyncio.get_running_loop()
        self._descriptor = os.pidfd_open(process.pid)
        self._loop.add_reader(self._descriptor, self._reap)

    @classmethod
    def start(cls, argv: Sequence[str], log: Path, environ: Mapping[str, str], name: str) -> Child:
        """A daemon in a session of its own (so that Ctrl-C is ours to pass on), writing to ``log``."""
        with log.open("ab") as output:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=dict(environ),
                start_new_session=True,
            )
        return cls(process, name)

    @property
    def returncode(self) -> int | None:
        return self._process.returncode

    @property
    def age_s(self) -> float:
        return time.monotonic() - self.started

    def describe_end(self) -> str:
        """``exited with status 1 after 0.2 s``."""
        code = self._process.returncode
        after = f"after {self.age_s:.1f} s"
        if code is None:
            return "is still running"
        if code < 0:
            with contextlib.suppress(ValueError):
                return f"was ended by {signal.Signals(-code).name} {after}"
        return f"exited with status {code} {after}"

    def signal(self, number: int) -> None:
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def signal_group(self, number: int) -> None:
        """To whatever is left of the process's session; it was made its leader at the start."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    async def wait(self, timeout_s: float) -> bool:
        """Whether it has ended within the time."""
        try:
            async with asyncio.timeout(timeout_s):
                await self.ended.wait()
        except TimeoutError:
            return False
        return True

    async def end(self, grace_s: float) -> None:
        """SIGTERM, then SIGKILL after ``grace_s``; returns when it is gone."""
        self.signal(signal.SIGTERM)
        if not await self.wait(grace_s):
            self.signal(signal.SIGKILL)
            await self.wait(5.0)

    def _reap(self) -> None:
        self._process.poll()
        if self._process.returncode is None:
            return
        self._loop.remove_reader(self._descriptor)
        os.close(self._descriptor)
        self.ended.set()
