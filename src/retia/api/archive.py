"""The backup archive: store and authority of a controller in one file.

A gzipped tar with ``manifest.json`` first, then ``store.sqlite`` and ``authority/*``. The store is copied
with SQLite's own online backup, so a controller may run meanwhile; restoring needs a stopped controller. The
archive holds the authority's private keys and is therefore always written with mode 0600.

Restoring unpacks beside the old state and swaps directories at the end: a damaged archive or a full disk
leaves what was there.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import sqlite3
import tarfile
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

FORMAT = 1
STORE = "store.sqlite"
AUTHORITY = "authority"
_MEMBER_LIMIT_BYTES = 4 * 1024**3
"""Arbitrary: far above any store, far below what fills a disk by accident."""


class ArchiveError(Exception):
    """The archive cannot be written or read; the message says which file and why."""


@dataclass(frozen=True, slots=True)
class Manifest:
    software: str
    created: int
    """Seconds since 1970."""
    revision: int = 0
    objects: int = 0
    format: int = FORMAT


def write(controller_dir: Path, target: Path, manifest: Manifest) -> int:
    """Writes the state in ``controller_dir`` to ``target`` and returns its size in bytes.

    Blocks; call it in a thread. Raises :class:`ArchiveError` if ``target`` exists or cannot be written; no
    half-written file stays.
    """
    if target.exists():
        raise ArchiveError(f"{target} exists; choose a new file name")
    partial = target.with_name(f".{target.name}.partial")
    try:
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".retia-backup-") as scratch:
            store = Path(scratch) / STORE
            _copy_store(controller_dir / STORE, store)
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as raw:
                with tarfile.open(fileobj=raw, mode="w:gz") as archive:
                    _add_bytes(archive, "manifest.json", json.dumps(asdict(manifest)).encode())
                    archive.add(store, STORE)
                    authority = controller_dir / AUTHORITY
                    for path in sorted(authority.iterdir()) if authority.is_dir() else ():
                        if path.is_file():
                            archive.add(path, f"{AUTHORITY}/{path.name}")
                raw.flush()
                os.fsync(raw.fileno())
        partial.rename(target)
    except (OSError, sqlite3.Error, tarfile.TarError) as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise ArchiveError(f"cannot write the backup {target}: {error}") from error
    return target.stat().st_size


def read_manifest(source: Path) -> Manifest:
    """What an archive says of itself; :class:`ArchiveError` if it is none, or of a later format."""
    try:
        with tarfile.open(source, "r:gz") as archive:
            return _manifest(archive, source)
    except (OSError, tarfile.TarError, EOFError) as error:
        raise ArchiveError(f"cannot read the backup {source}: {error}") from error


def restore(source: Path, controller_dir: Path) -> Manifest:
    """Replaces the state in ``controller_dir`` by the archive's. The controller must not be running.

    What was there is kept beside it as ``<name>.before-restore`` (one generation).
    """
    fresh = controller_dir.with_name(f"{controller_dir.name}.restoring")
    before = controller_dir.with_name(f"{controller_dir.name}.before-restore")
    try:
        with tarfile.open(source, "r:gz") as archive:
            manifest = _manifest(archive, source)
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir(mode=0o700, parents=True)
            for member in archive.getmembers():
                _extract(archive, member, fresh)
        if not (fresh / STORE).is_file():
            raise ArchiveError(f"the backup {source} holds no {STORE}; it is damaged or not a Retia backup")
        _check_store(fresh / STORE, source)
        if controller_dir.exists():
            shutil.rmtree(before, ignore_errors=True)
            controller_dir.rename(before)
        fresh.rename(controller_dir)
    except (OSError, tarfile.TarError, EOFError) as error:
        raise ArchiveError(f"cannot restore {source}: {error}") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return manifest


def _copy_store(source: Path, target: Path) -> None:
    if not source.is_file():
        raise ArchiveError(f"there is no store at {source}; start a controller with this RETIA_HOME once")
    with (
        contextlib.closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True)) as old,
        contextlib.closing(sqlite3.connect(target)) as new,
    ):
        old.backup(new)


def _check_store(store: Path, source: Path) -> None:
    try:
        with contextlib.closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as database:
            (verdict,) = database.execute("PRAGMA quick_check").fetchone()
    except sqlite3.Error as error:
        raise ArchiveError(f"the store in the backup {source} is damaged: {error}") from error
    if verdict != "ok":
        raise ArchiveError(f"the store in the backup {source} is damaged: {verdict}")


def _add_bytes(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    member.mode = 0o600
    archive.addfile(member, io.BytesIO(content))


def _manifest(archive: tarfile.TarFile, source: Path) -> Manifest:
    try:
        stream = archive.extractfile("manifest.json")
        content = json.loads(stream.read(65_536)) if stream else {}
        manifest = Manifest(
            software=str(content["software"]),
            created=int(content["created"]),
            revision=int(content.get("revision", 0)),
            objects=int(content.get("objects", 0)),
            format=int(content["format"]),
        )
    except (KeyError, ValueError, TypeError) as error:
        raise ArchiveError(f"{source} is not a Retia backup: no readable manifest.json") from error
    if manifest.format > FORMAT:
        raise ArchiveError(
            f"the backup {source} has format {manifest.format}, this version reads up to {FORMAT}; "
            f"restore it with Retia {manifest.software} or later"
        )
    return manifest


def _extract(archive: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    """Only plain files that a backup has, so that no crafted archive writes elsewhere."""
    directory, _, name = member.name.rpartition("/")
    known = member.name == STORE or (directory == AUTHORITY and name not in ("", ".", ".."))
    if not known or not member.isfile() or member.size > _MEMBER_LIMIT_BYTES:
        return
    stream = archive.extractfile(member)
    if stream is None:
        return
    path = target / member.name
    path.parent.mkdir(mode=0o700, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as out:
        shutil.copyfileobj(stream, out)
