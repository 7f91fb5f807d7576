"""``retia down`` after the worst: supervisor and keeper killed, so that nobody is left to be asked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from retia.cli.tour.processes import wait_until

pytestmark = [pytest.mark.privileged, pytest.mark.timeout(120)]

MESH = """\
services:
  idle:
    command: [python3, -m, http.server, "8000"]
    ports: ["8000"]
"""


def processes_of(home: Path) -> list[int]:
    """All processes that were started for this home, by their environment and arguments."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            said = (entry / "environ").read_bytes() + (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if os.fsencode(home) in said and int(entry.name) != os.getpid():
            found.append(int(entry.name))
    return found


def test_it_ends_what_a_killed_supervisor_and_keeper_left_behind() -> None:
    with tempfile.TemporaryDirectory(prefix="retia-down-") as folder:
        home = Path(folder)
        (home / "retia.yaml").write_text(MESH)
        environment = {**os.environ, "RETIA_HOME": str(home / "h")}
        retia = [sys.executable, "-c", "from retia.cli.main import main; raise SystemExit(main())"]
        up = subprocess.Popen(
            [*retia, "up", str(home / "retia.yaml")], env=environment, stdout=subprocess.DEVNULL
        )
        try:
            record = home / "h" / "up.json"
            assert wait_until(lambda: record.exists() and "default/idle" in record.read_text(), 60)
            keeper = int((home / "h" / "run" / "keeper.lock").read_text())
            os.kill(up.pid, signal.SIGKILL)
            os.kill(keeper, signal.SIGKILL)
            up.wait(10)
            assert processes_of(home), "something should have been left behind"
            subprocess.run([*retia, "down"], env=environment, check=True, timeout=60)
            assert wait_until(lambda: not processes_of(home), 10), processes_of(home)
        finally:
            for pid in processes_of(home):
                os.kill(pid, signal.SIGKILL)
