"""The guided tour as CI walks it, and what it leaves on the host."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from retia.cli.tour import leftovers
from retia.cli.tour.processes import retia, wait_until
from retia.cli.tour.steps import STEPS

NUMBER_OF_EXPLICIT_GAPS = sum(bool(step.needs_ebpf) for step in STEPS)


@pytest.mark.privileged
@pytest.mark.timeout(300)
def test_the_whole_tour_holds_under_ebpf() -> None:
    done = subprocess.run(
        retia("demo", "--check", "--capture", "ebpf"),
        capture_output=True,
        text=True,
        timeout=290,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "✗" not in done.stdout
    assert done.stdout.count("✓") == len(STEPS) + 1
    assert "n/a" not in done.stdout


@pytest.mark.timeout(300)
def test_an_ordinary_user_walks_the_reduced_tour(as_ordinary_user: Callable[[], None]) -> None:
    with tempfile.TemporaryDirectory(prefix="retia-user-") as folder:
        Path(folder).chmod(0o777)
        done = subprocess.run(
            retia("demo", "--check"),
            capture_output=True,
            text=True,
            timeout=290,
            check=False,
            preexec_fn=as_ordinary_user,
            env={**os.environ, "HOME": folder, "TMPDIR": folder},
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("n/a (explicit)") == NUMBER_OF_EXPLICIT_GAPS
    assert done.stdout.count("✓") == len(STEPS) + 1 - NUMBER_OF_EXPLICIT_GAPS


@pytest.mark.privileged
@pytest.mark.timeout(180)
@pytest.mark.parametrize("moment", ["while it starts", "while it runs"])
def test_ctrl_c_ends_the_demo_and_leaves_nothing(moment: str, tmp_path: Path) -> None:
    mounted_before = leftovers.bpffs_is_ours()
    # A folder of its own for temporary files, short enough for the paths of sockets.
    temporary = Path(tempfile.mkdtemp(prefix="rt-"))
    output = tmp_path / "output"
    with output.open("wb") as out:
        demo = subprocess.Popen(
            retia("demo"), stdout=out, stderr=out, env={**os.environ, "TMPDIR": str(temporary)}
        )
    try:
        if moment == "while it starts":
            assert wait_until(lambda: any(temporary.glob("*/run/agent.sock")), 30)
        else:
            assert wait_until(lambda: "The shop runs" in output.read_text(), 90), output.read_text()
            time.sleep(1)
        (home,) = temporary.iterdir()
        index = leftovers.index_of(home)
        assert index is not None
        demo.send_signal(signal.SIGINT)
        assert demo.wait(60) == 0, output.read_text()
        assert list(temporary.iterdir()) == []
        assert leftovers.traces(home, index, mounted_before) == []
    finally:
        demo.kill()
        demo.wait(10)
        shutil.rmtree(temporary, ignore_errors=True)
