"""A file system that is really full."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from retia.model.ids import Namespace
from retia.model.objects import ObjectRef
from retia.sources import backup
from retia.sources.errors import StoreFull
from retia.sources.sqlite import SqliteStore
from retia.sources.store import Put

pytestmark = pytest.mark.privileged

SMALL = ObjectRef("K", Namespace("n"), "small")
LARGE = ObjectRef("K", Namespace("n"), "large")


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes."""
    mount = tmp_path / "tiny"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(mount)], check=True, timeout=10)
    try:
        yield mount
    finally:
        subprocess.run(["umount", str(mount)], check=True, timeout=10)


def fill(directory: Path) -> Path:
    ballast = directory / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"x" * 4096):
            pass
    return ballast


def test_a_write_fails_as_a_whole_and_reading_goes_on(tiny: Path) -> None:
    with SqliteStore(tiny / "store.sqlite") as store:
        store.write([Put(SMALL, {"x": 1})])
        ballast = fill(tiny)
        with pytest.raises(StoreFull, match="no space left on the device; nothing was written"):
            store.write([Put(SMALL, {"x": 2}), Put(LARGE, {"x": "y" * 300_000})])
        found = store.get(SMALL)
        assert found is not None
        assert found.document == {"x": 1}
        ballast.unlink()
        assert store.write([Put(SMALL, {"x": 2})]).revision == 2


def test_opening_a_new_store_fails_clearly(tiny: Path) -> None:
    fill(tiny)
    with pytest.raises(StoreFull, match="no space left on the device"):
        SqliteStore(tiny / "store.sqlite")


def test_a_store_that_was_there_is_not_harmed(tiny: Path) -> None:
    with SqliteStore(tiny / "store.sqlite") as store:
        store.write([Put(SMALL, {"x": 1})])
    ballast = fill(tiny)
    with contextlib.suppress(StoreFull):
        SqliteStore(tiny / "store.sqlite").close()
    ballast.unlink()
    with SqliteStore(tiny / "store.sqlite") as store:
        assert store.get(SMALL) is not None


def test_a_backup_that_does_not_fit_leaves_nothing(tiny: Path, tmp_path: Path) -> None:
    home = tmp_path / "controller"
    home.mkdir()
    with SqliteStore(home / "store.sqlite") as store:
        store.write([Put(LARGE, {"x": list(range(300_000))})])
    with pytest.raises(backup.BackupError, match=r"cannot be written: .*[Nn]o space left"):
        backup.write(home, tiny / "mesh.tar.gz", "0.1.0", datetime.now(UTC))
    assert list(tiny.iterdir()) == []
