"""Backup and restore of a controller's state: its store and its authority, in one file.

The archive is a gzipped tar: ``manifest.json`` first, then ``store.sqlite`` (a consistent copy made by
SQLite's backup interface, so a controller may be running) and ``authority/*``. The manifest has a format
version and the size and SHA-256 of every file. It holds private keys, so it's written with mode 0600.

Restoring needs a stopped controller. Everything is unpacked and checked beside the old state (names, sizes,
checksums, the store's integrity and schema version, keys against certificates), then one rename puts it in
place; what was there is kept. A damaged archive or a full disk leaves everything as it was.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import os
import shutil
import sqlite3
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from retia.sources.errors import StoreError
from retia.sources.sqlite import SCHEMA_VERSION, check_file, copy_database, holder_of, translated

FORMAT: Final = 1
STORE: Final = "store.sqlite"
AUTHORITY: Final = "authority"
MANIFEST: Final = "manifest.json"
_MAX_MANIFEST_BYTES: Final = 1 << 20
_MAX_AUTHORITY_FILE_BYTES: Final = 1 << 20
_CHUNK: Final = 1 << 20


class BackupError(Exception):
    """The archive can't be written, read or restored; the message says which file, why, and what to do."""


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of the archive."""

    path: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an archive says about itself."""

    software: str
    """The version of Retia that made it."""
    created: int
    """Seconds since 1970."""
    revision: int = 0
    """Of the store."""
    objects: int = 0
    schema: int = SCHEMA_VERSION
    files: tuple[FileEntry, ...] = ()
    format: int = FORMAT


def write(controller: Path, target: Path, software: str, now: datetime) -> Manifest:
    """Saves the state in the directory ``controller`` to the new file ``target``.

    Blocks: call it in a thread. Raises :class:`BackupError`; then nothing is left behind.
    """
    if target.exists():
        raise BackupError(f"{target} exists; choose a new file name")
    scratch = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        scratch.mkdir(mode=0o700)
        revision, objects, schema = _copy_store(controller / STORE, scratch / STORE)
        _copy_authority(controller / AUTHORITY, scratch / AUTHORITY)
        files = tuple(_entry(scratch, path) for path in _files(scratch))
        manifest = Manifest(software, int(now.timestamp()), revision, objects, schema, files)
        archive = scratch / "archive"
        _pack(scratch, archive, manifest)
        _place(archive, target)
        _sync(target.parent)
    except (OSError, StoreError, tarfile.TarError) as error:
        raise BackupError(f"the backup {target} cannot be written: {error}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return manifest


def read_manifest(source: Path) -> Manifest:
    """What an archive says about itself; raises :class:`BackupError` if it is none, or of a newer format."""
    with _opened(source) as archive:
        return _manifest(archive, source)


def restore(source: Path, controller: Path, *, force: bool = False, now: datetime | None = None) -> Manifest:
    """Puts the archive's state into the directory ``controller``.

    What was there is renamed to ``<controller>.before-restore-<time>``; without ``force`` it's an error that
    something is there. Raises :class:`BackupError`; then the old state is untouched.
    """
    _refuse_running(controller)
    if controller.exists() and any(controller.iterdir()) and not force:
        raise BackupError(
            f"{controller} holds the state of a mesh; use --force to replace it (it is kept beside)"
        )
    fresh = controller.with_name(f".{controller.name}.{os.getpid()}.restoring")
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        fresh.mkdir(mode=0o700, parents=True)
        with _opened(source) as archive:
            manifest = _manifest(archive, source)
            _unpack(archive, manifest, fresh, source)
        _check_state(fresh, source)
        _swap(fresh, controller, now or datetime.now(UTC))
    except OSError as error:
        raise BackupError(f"{source} cannot be restored to {controller}: {error}") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return manifest


def _copy_store(source: Path, target: Path) -> tuple[int, int, int]:
    if not source.is_file():
        raise BackupError(f"there is no store {source}; was a controller ever started with this RETIA_HOME?")
    with translated(source), contextlib.closing(_read_only(source)) as store:
        copy_database(store, target)
    with translated(target), contextlib.closing(_read_only(target)) as copy:
        (revision,) = copy.execute("SELECT value FROM meta WHERE key = 'revision'").fetchone()
        (objects,) = copy.execute("SELECT count(*) FROM objects").fetchone()
        (schema,) = copy.execute("PRAGMA user_version").fetchone()
    return int(revision), int(objects), int(schema)


def _read_only(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5.0)


def _copy_authority(source: Path, target: Path) -> None:
    """Copies the files; the intermediate may be renewed meanwhile, so key and certificate are checked."""
    for attempt in range(3):
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(mode=0o700)
        for path in sorted(source.iterdir()) if source.is_dir() else ():
            if path.is_file() and not path.name.startswith("."):
                _write_private(target / path.name, path.read_bytes())
        try:
            _check_authority(target)
            return
        except BackupError:
            if attempt == 2:
                raise


def _place(archive: Path, target: Path) -> None:
    """Gives the finished file its name. A link, unlike a rename, never replaces a file that appeared
    meanwhile; not every file system has links."""
    try:
        os.link(archive, target)
    except FileExistsError:
        raise
    except OSError:
        archive.rename(target)


def _files(root: Path) -> list[Path]:
    return sorted(p for p in root.rglob("*") if p.is_file())


def _entry(root: Path, path: Path) -> FileEntry:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return FileEntry(path.relative_to(root).as_posix(), path.stat().st_size, digest)


def _pack(root: Path, target: Path, manifest: Manifest) -> None:
    fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as raw:
        with tarfile.open(fileobj=raw, mode="w:gz", compresslevel=6) as archive:
            described = json.dumps(asdict(manifest), indent=2).encode()
            archive.addfile(_member(MANIFEST, len(described), manifest.created), io.BytesIO(described))
            for entry in manifest.files:
                with (root / entry.path).open("rb") as file:
                    archive.addfile(_member(entry.path, entry.size_bytes, manifest.created), file)
        raw.flush()
        os.fsync(raw.fileno())


def _member(name: str, size: int, created: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = size, 0o600, created
    return member


@contextlib.contextmanager
def _opened(source: Path) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(source, "r:gz") as archive:
            yield archive
    except FileNotFoundError as error:
        raise BackupError(f"there is no backup {source}") from error
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise BackupError(f"{source} is damaged or no backup: {error}") from error


def _manifest(archive: tarfile.TarFile, source: Path) -> Manifest:
    member = archive.next()
    if member is None or member.name != MANIFEST or not member.isfile() or member.size > _MAX_MANIFEST_BYTES:
        raise BackupError(f"{source} is no backup of Retia: it does not begin with {MANIFEST}")
    try:
        raw = json.loads(_stream(archive, member).read())
        if int(raw["format"]) > FORMAT:
            raise BackupError(
                f"{source} has format {raw['format']}, written by Retia {raw.get('software', '?')}; this one "
                f"reads up to {FORMAT}: upgrade it"
            )
        return Manifest(
            software=str(raw["software"]),
            created=int(raw["created"]),
            revision=int(raw["revision"]),
            objects=int(raw["objects"]),
            schema=int(raw["schema"]),
            files=tuple(_read_entry(f) for f in raw["files"]),
            format=int(raw["format"]),
        )
    except (KeyError, ValueError, TypeError) as error:
        raise BackupError(f"{source}: its {MANIFEST} is damaged") from error


def _read_entry(raw: Any) -> FileEntry:
    entry = FileEntry(str(raw["path"]), int(raw["size_bytes"]), str(raw["sha256"]))
    directory, _, name = entry.path.rpartition("/")
    if entry.path != STORE and not (directory == AUTHORITY and name and not name.startswith(".")):
        raise ValueError(f"a backup holds no {entry.path}")
    if directory and not 0 <= entry.size_bytes <= _MAX_AUTHORITY_FILE_BYTES:
        raise ValueError(f"{entry.path} is too large")
    return entry


def _unpack(archive: tarfile.TarFile, manifest: Manifest, target: Path, source: Path) -> None:
    """Writes the files that the manifest names, and no others, and checks each."""
    wanted = {entry.path: entry for entry in manifest.files}
    (target / AUTHORITY).mkdir(mode=0o700)
    while member := archive.next():
        entry = wanted.pop(member.name, None)
        if entry is None or not member.isfile() or member.size != entry.size_bytes:
            raise BackupError(f"{source} is damaged: {member.name!r} is not as {MANIFEST} describes it")
        if _write_checked(target / entry.path, _stream(archive, member)) != entry.sha256:
            raise BackupError(f"{source} is damaged: the checksum of {entry.path} is wrong")
    if wanted:
        raise BackupError(f"{source} is damaged: {', '.join(sorted(wanted))} missing")
    while archive.fileobj is not None and archive.fileobj.read(_CHUNK):
        """To the end, where gzip's own checksum is."""
    if STORE not in {entry.path for entry in manifest.files}:
        raise BackupError(f"{source} holds no {STORE}")


def _stream(archive: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    stream = archive.extractfile(member)
    if stream is None:
        raise ValueError(f"{member.name} is no file")
    return stream


def _write_checked(path: Path, stream: IO[bytes]) -> str:
    digest = hashlib.sha256()
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def _write_private(path: Path, content: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(content)


def _check_state(state: Path, source: Path) -> None:
    try:
        check_file(state / STORE)
    except StoreError as error:
        raise BackupError(f"the store in {source} cannot be used: {error}") from error
    try:
        _check_authority(state / AUTHORITY)
    except BackupError as error:
        raise BackupError(f"the authority in {source} cannot be used: {error}") from error


def _check_authority(directory: Path) -> None:
    """That every key fits the certificate of the same name."""
    for key_file in sorted(directory.glob("*.key")):
        certificate_file = key_file.with_suffix(".pem")
        try:
            certificate = x509.load_pem_x509_certificate(certificate_file.read_bytes())
            key = serialization.load_pem_private_key(key_file.read_bytes(), password=None)
        except (OSError, ValueError, TypeError) as error:
            raise BackupError(f"{key_file.name} or {certificate_file.name} cannot be read") from error
        if key.public_key() != certificate.public_key():
            raise BackupError(f"{key_file.name} is not the key of {certificate_file.name}")


def _refuse_running(controller: Path) -> None:
    holder = holder_of(controller / STORE)
    if holder is not None:
        raise BackupError(f"a controller (process {holder}) is running on {controller}; stop it first")


def _swap(fresh: Path, controller: Path, now: datetime) -> None:
    before = controller.with_name(f"{controller.name}.before-restore-{now:%Y%m%d-%H%M%S}")
    if controller.exists():
        controller.rename(before)
    try:
        fresh.rename(controller)
    except OSError:
        if before.exists():
            before.rename(controller)
        raise
    _sync(controller.parent)


def _sync(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
