"""What counts as left behind by a mesh."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

from retia.cli.tour.leftovers import bpffs_is_ours, index_of, traces
from retia.cli.tour.processes import belonging_to, wait_until
from retia.node.meshindex import MeshLock


def test_a_mesh_that_never_was_left_nothing(tmp_path: Path) -> None:
    assert traces(tmp_path / "gone", None, bpffs_is_ours()) == []


def test_the_state_folder_counts(tmp_path: Path) -> None:
    assert traces(tmp_path, None, bpffs_is_ours()) == [f"folder {tmp_path}"]


def test_the_index_is_read_from_the_state_folder(tmp_path: Path) -> None:
    assert index_of(tmp_path) is None
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "index").write_text("7\n")
    assert index_of(tmp_path) == 7


def test_the_lock_on_the_index_counts(tmp_path: Path) -> None:
    lock = MeshLock.take()
    try:
        found = traces(tmp_path / "gone", lock.index, bpffs_is_ours())
        assert f"socket @retia-mesh-{lock.index}" in found
    finally:
        lock.close()


def test_sockets_of_others_do_not_count(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind("\0retia-mesh-somebody")
        assert traces(tmp_path / "gone", None, bpffs_is_ours()) == []


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
