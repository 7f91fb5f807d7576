"""Processes that a stage starts, and what may be left of them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

POLL_S = 0.05


def retia(*arguments: str) -> list[str]:
    """The command line of this very installation, whatever is in ``PATH``."""
    return [sys.executable, "-c", "from retia.cli.main import main; main()", *arguments]


def wait_until(true: Callable[[], bool], timeout_s: float, poll_s: float = POLL_S) -> bool:
    """Whether ``true()`` came true within the time."""
    end = time.monotonic() + timeout_s
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(poll_s)
    return True


def end(process: subprocess.Popen[str], grace_s: float, first: int = signal.SIGTERM) -> None:
    """Ask a process to end, and kill it when it does not within ``grace_s``."""
    if process.poll() is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(first)
    try:
        process.wait(grace_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(5)


def belonging_to(home: Path) -> list[str]:
    """Processes that know a state folder by argument or environment, as ``pid: command``."""
    marks = (str(home).encode(), f"RETIA_HOME={home}".encode())
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            command = (entry / "cmdline").read_bytes()
            environment = (entry / "environ").read_bytes()
        except OSError:
            continue
        if marks[0] in command or marks[1] in environment:
            found.append(f"{entry.name}: {command.replace(bytes(1), b' ').decode(errors='replace').strip()}")
    return sorted(found)


def tail(path: Path, lines: int = 20) -> str:
    """The last lines of a file, or nothing."""
    try:
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""


def shown(command: Sequence[str]) -> str:
    """A command as its user would type it."""
    return " ".join(command)
