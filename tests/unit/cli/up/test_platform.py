"""What a new supervisor finds of an agent whose keeper was killed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from retia.cli.up.platform import _worker_lives


def _stamp() -> int:
    return int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])


def test_a_worker_that_goes_on_is_found(tmp_path: Path) -> None:
    record = {"worker": {"pid": os.getpid(), "stamp": _stamp()}}
    (tmp_path / "keeper.json").write_text(json.dumps(record))
    assert _worker_lives(tmp_path)


@pytest.mark.parametrize(
    "record",
    [None, "", "[]", "{}", json.dumps({"worker": {"pid": os.getpid(), "stamp": 1}})],
    ids=["no file", "empty", "a list", "nobody", "a pid that was given again"],
)
def test_nothing_else_is_taken_for_one(tmp_path: Path, record: str | None) -> None:
    if record is not None:
        (tmp_path / "keeper.json").write_text(record)
    assert not _worker_lives(tmp_path)
