"""What counts as left behind by a mesh."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from retia.cli.tour.leftovers import HostState, difference, look
from retia.cli.tour.processes import belonging_to, wait_until

EMPTY = HostState(frozenset(), frozenset(), frozenset(), frozenset())


def test_nothing_changed_is_nothing_left(tmp_path: Path) -> None:
    assert difference(look(), look(), tmp_path / "gone") == []


def test_what_was_there_before_is_not_left_behind(tmp_path: Path) -> None:
    before = HostState(frozenset({"/cg/retia-0"}), frozenset(), frozenset(), frozenset())
    after = HostState(frozenset({"/cg/retia-0", "/cg/retia-1"}), frozenset({"/p"}), frozenset(), frozenset())
    assert difference(before, after, tmp_path / "gone") == ["cgroup /cg/retia-1", "pinned object /p"]


def test_another_mesh_that_started_meanwhile_does_not_count(tmp_path: Path) -> None:
    after = HostState(
        frozenset({"/cg/retia-0", "/cg/retia-1", "/cg/retia-11"}),
        frozenset({"/sys/fs/bpf/retia-0"}),
        frozenset({"bpf on /sys/fs/bpf"}),
        frozenset({"@retia-mesh-0", "@retia-mesh-1"}),
    )
    found = difference(EMPTY, after, tmp_path / "gone", index=1)
    assert found == ["cgroup /cg/retia-1", "socket @retia-mesh-1"]


def test_the_state_folder_counts(tmp_path: Path) -> None:
    assert difference(EMPTY, EMPTY, tmp_path) == [f"folder {tmp_path}"]


def test_a_process_is_known_by_its_environment(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"],
        stdin=subprocess.PIPE,
        env={**os.environ, "RETIA_HOME": str(home)},
    ) as process:
        assert wait_until(lambda: any(p.startswith(f"{process.pid}:") for p in belonging_to(home)), 5)
        assert process.stdin is not None
        process.stdin.close()
    assert belonging_to(home) == []
