"""The file: how it opens, how it fails, what then is left."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from retia.model.ids import Namespace
from retia.model.objects import ObjectRef
from retia.sources.errors import StoreBusy, StoreDamaged, StoreError, StoreFull, StoreTooNew
from retia.sources.sqlite import (
    MIGRATIONS,
    SCHEMA_VERSION,
    SqliteStore,
    check_file,
    copy_database,
    good_copy,
    holder_of,
)
from retia.sources.store import Put, PutRecord

A = ObjectRef("VirtualService", Namespace("default"), "a")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.sqlite"


def filled(path: Path, objects: int = 1) -> None:
    with SqliteStore(path) as store:
        store.write(
            [Put(ObjectRef("K", Namespace("n"), f"o{n}"), {"text": "x" * 500}) for n in range(objects)]
        )


def test_what_was_written_is_there_after_a_restart(path: Path) -> None:
    with SqliteStore(path) as store:
        store.write([Put(A, {"x": 1})])
        store.write_records([PutRecord("s", "k", b"v")])
    with SqliteStore(path) as store:
        assert store.revision() == 1
        assert store.get(A) is not None
        assert store.record("s", "k") is not None
        assert store.notes == []


def test_its_files_are_its_owners_alone(path: Path) -> None:
    with SqliteStore(path) as store:
        store.write([Put(A, {})])
        modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in path.parent.iterdir()}
    assert set(modes.values()) == {0o600}
    assert modes.keys() >= {"store.sqlite", "store.sqlite-wal", "store.sqlite.good", "store.sqlite.lock"}


def test_a_second_controller_is_kept_away(path: Path) -> None:
    assert holder_of(path) is None
    with SqliteStore(path):
        assert holder_of(path) == os.getpid()
        with pytest.raises(StoreBusy, match=f"is in use by process {os.getpid()}"):
            SqliteStore(path)
    assert holder_of(path) is None
    SqliteStore(path).close()


def test_a_killed_process_leaves_the_store_usable(path: Path) -> None:
    script = """
import sys
from pathlib import Path
from retia.model.objects import ObjectRef
from retia.sources.sqlite import SqliteStore
from retia.sources.store import Put
store = SqliteStore(Path(sys.argv[1]))
store.write([Put(ObjectRef("K", "n", "o"), {"x": 1})])
print("written", flush=True)
sys.stdin.read()
"""
    child = subprocess.Popen(
        [sys.executable, "-c", script, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == b"written\n"
        with pytest.raises(StoreBusy, match=f"process {child.pid}"):
            SqliteStore(path)
    finally:
        child.send_signal(signal.SIGKILL)
        child.communicate(timeout=10)
    with SqliteStore(path) as store:
        assert len(store.list().objects) == 1


def damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "cut":
        content = content[: len(content) // 2]
    elif how == "overwritten":
        content[4096:] = b"\xff" * (len(content) - 4096)
    else:
        content = bytearray(b"hello, this is no database at all" * 200)
    path.write_bytes(content)


@pytest.mark.parametrize("how", ["cut", "overwritten", "another file"])
def test_a_damaged_file_is_left_alone_and_its_good_copy_named(path: Path, how: str) -> None:
    filled(path, 100)
    filled(path)
    damage(path, how)
    before = path.read_bytes()
    with pytest.raises(StoreDamaged, match=r"is damaged .* last good copy is .*store\.sqlite\.good"):
        SqliteStore(path)
    assert path.read_bytes() == before
    assert holder_of(path) is None
    path.write_bytes(good_copy(path).read_bytes())
    with SqliteStore(path) as store:
        assert len(store.list().objects) == 100


def test_without_a_good_copy_a_backup_is_asked_for(path: Path) -> None:
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(StoreDamaged, match="retia restore"):
        SqliteStore(path)


def test_another_programs_database_is_refused(path: Path) -> None:
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE t (x)")
    other.close()
    with pytest.raises(StoreDamaged, match="a SQLite file of another program"):
        SqliteStore(path)


def test_a_newer_schema_is_refused_and_untouched(path: Path) -> None:
    newer = (*MIGRATIONS, ("CREATE TABLE later (x)",))
    SqliteStore(path, migrations=newer).close()
    before = path.read_bytes()
    version = SCHEMA_VERSION + 1
    with pytest.raises(
        StoreTooNew, match=rf"schema version {version}, written by a newer Retia; this one knows"
    ):
        SqliteStore(path)
    assert path.read_bytes() == before


def test_an_older_schema_is_brought_forward_and_kept_aside(path: Path) -> None:
    filled(path)
    newer: Sequence[Sequence[str]] = (*MIGRATIONS, ("ALTER TABLE objects ADD COLUMN note TEXT",))
    with SqliteStore(path, migrations=newer) as store:
        assert len(store.list().objects) == 1
        assert f"schema version {SCHEMA_VERSION} is brought to {SCHEMA_VERSION + 1}" in store.notes[0]
    aside = path.with_name(f"store.sqlite.v{SCHEMA_VERSION}")
    check_file(aside)
    assert stat.S_IMODE(aside.stat().st_mode) == 0o600


def test_a_failed_migration_changes_nothing(path: Path) -> None:
    filled(path)
    broken = (*MIGRATIONS, ("CREATE TABLE later (x)", "THIS IS NO SQL"))
    with pytest.raises(StoreError, match="syntax error"):
        SqliteStore(path, migrations=broken)
    with SqliteStore(path) as store:
        assert len(store.list().objects) == 1


def test_a_full_disk_fails_the_write_and_keeps_the_last_state(path: Path) -> None:
    with SqliteStore(path) as store:
        store.write([Put(A, {"x": 1})])
        store._db.execute("PRAGMA max_page_count = 20")  # SQLite then reports what a full disk reports
        with pytest.raises(StoreFull, match="no space left on the device; nothing was written"):
            store.write([Put(A, {"x": 2}), Put(ObjectRef("K", Namespace("n"), "big"), {"x": "y" * 200_000})])
        with pytest.raises(StoreFull):
            store.write_records([PutRecord("s", "k", b"v" * 200_000)])
        found = store.get(A)
        assert found is not None
        assert found.document == {"x": 1}
        assert store.revision() == 1
        assert store.record("s", "k") is None
        store._db.execute("PRAGMA max_page_count = 1000000")
        assert store.write([Put(A, {"x": 2})]).revision == 2


def test_a_missing_directory_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"store .*/no/store\.sqlite: No such file or directory"):
        SqliteStore(tmp_path / "no" / "store.sqlite")


def test_a_copy_is_whole_while_others_write(path: Path, tmp_path: Path) -> None:
    with SqliteStore(path) as store, contextlib.closing(sqlite3.connect(path)) as reader:
        store.write([Put(A, {"x": 1})])
        copy_database(reader, tmp_path / "copy")
        store.write([Put(A, {"x": 2})])
    check_file(tmp_path / "copy")
    with SqliteStore(tmp_path / "copy") as copy:
        assert copy.revision() == 1


def test_a_copy_that_fails_leaves_nothing(path: Path, tmp_path: Path) -> None:
    filled(path)
    with contextlib.closing(sqlite3.connect(path)) as reader, pytest.raises(OSError):
        copy_database(reader, tmp_path / "no" / "copy")
    assert not list(tmp_path.rglob("*.partial"))


def test_a_good_copy_that_fails_is_noted_and_no_more(path: Path) -> None:
    filled(path)
    good_copy(path).unlink()
    good_copy(path).mkdir()
    (good_copy(path) / "x").touch()
    with SqliteStore(path) as store:
        assert "no copy of the checked store was made" in store.notes[0]
        assert len(store.list().objects) == 1


def test_an_empty_file_is_no_store_to_restore(path: Path) -> None:
    path.touch()
    with pytest.raises(StoreDamaged, match="it is empty"):
        check_file(path)
    SqliteStore(path).close()
    check_file(path)
