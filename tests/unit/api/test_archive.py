"""Backups: whole, private, and never half restored."""

from __future__ import annotations

import io
import sqlite3
import tarfile
from contextlib import closing
from pathlib import Path

import pytest

from retia.api import archive
from retia.api.archive import ArchiveError, Manifest

MANIFEST = Manifest(software="0.1.0", created=1_700_000_000, revision=7, objects=2)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return make_state(tmp_path / "controller", "first")


def make_state(folder: Path, word: str) -> Path:
    (folder / "authority").mkdir(parents=True)
    (folder / "authority" / "root.key").write_text(f"key {word}")
    with closing(sqlite3.connect(folder / "store.sqlite")) as database:
        database.execute("create table t (x)")
        database.execute("insert into t values (?)", (word,))
        database.commit()
    return folder


def content(folder: Path) -> tuple[str, str]:
    with closing(sqlite3.connect(folder / "store.sqlite")) as database:
        (word,) = database.execute("select x from t").fetchone()
    return word, (folder / "authority" / "root.key").read_text()


def test_what_is_saved_comes_back(state: Path, tmp_path: Path) -> None:
    target = tmp_path / "b.tar.gz"
    assert archive.write(state, target, MANIFEST) == target.stat().st_size
    assert target.stat().st_mode & 0o777 == 0o600
    assert archive.read_manifest(target) == MANIFEST
    fresh = tmp_path / "elsewhere" / "controller"
    assert archive.restore(target, fresh) == MANIFEST
    assert content(fresh) == ("first", "key first")
    assert (fresh / "authority" / "root.key").stat().st_mode & 0o777 == 0o600


def test_restoring_keeps_what_was_there_beside(state: Path, tmp_path: Path) -> None:
    target = tmp_path / "b.tar.gz"
    archive.write(state, target, MANIFEST)
    now = make_state(tmp_path / "now", "second")
    archive.restore(target, now)
    assert content(now) == ("first", "key first")
    assert content(tmp_path / "now.before-restore") == ("second", "key second")


@pytest.mark.parametrize("damage", ["empty", "cut", "text", "no store", "later format"])
def test_a_bad_archive_changes_nothing(state: Path, tmp_path: Path, damage: str) -> None:
    target = tmp_path / "b.tar.gz"
    archive.write(state, target, MANIFEST)
    whole = target.read_bytes()
    if damage in ("no store", "later format"):
        version = archive.FORMAT + (damage == "later format")
        text = f'{{"software": "9", "created": 1, "format": {version}}}'.encode()
        with tarfile.open(target, "w:gz") as out:
            member = tarfile.TarInfo("manifest.json")
            member.size = len(text)
            out.addfile(member, io.BytesIO(text))
    else:
        target.write_bytes({"empty": b"", "cut": whole[: len(whole) // 2], "text": b"hello"}[damage])
    now = make_state(tmp_path / "now", "second")
    with pytest.raises(ArchiveError):
        archive.restore(target, now)
    assert content(now) == ("second", "key second")
    assert not (tmp_path / "now.restoring").exists()


def test_no_member_escapes_the_folder(state: Path, tmp_path: Path) -> None:
    target = tmp_path / "b.tar.gz"
    archive.write(state, target, MANIFEST)
    with tarfile.open(target) as old:
        members = [(m, old.extractfile(m).read()) for m in old.getmembers()]  # type: ignore[union-attr]
    with tarfile.open(target, "w:gz") as out:
        for name in ("../evil", "authority/../../evil", "/evil", "authority/sub/evil"):
            members.append((tarfile.TarInfo(name), b"x"))
        for member, data in members:
            member.size = len(data)
            out.addfile(member, io.BytesIO(data))
    archive.restore(target, tmp_path / "r" / "controller")
    assert not list(tmp_path.rglob("evil"))


def test_an_existing_file_is_not_overwritten(state: Path, tmp_path: Path) -> None:
    target = tmp_path / "b.tar.gz"
    target.write_text("precious")
    with pytest.raises(ArchiveError, match="exists"):
        archive.write(state, target, MANIFEST)
    assert target.read_text() == "precious"


def test_without_a_store_it_says_so_and_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="there is no store"):
        archive.write(tmp_path / "none", tmp_path / "b.tar.gz", MANIFEST)
    assert list(tmp_path.iterdir()) == []
