"""The embedded store: one SQLite file, for one controller.

Write-ahead log with full synchronisation: what was applied survives a power cut, readers never wait for the
writer. One connection under one lock serves all threads; an exclusive ``flock`` on ``<file>.lock`` keeps a
second controller away (it goes with the process, however that ends) without hindering a backup, which opens
the file only to read.

At start the file is checked (``quick_check``, schema version) and brought to the current schema, after a
copy of the old one was put aside. A file that passes is copied to ``<file>.good``. A file that doesn't pass
is left exactly as it is: the error names the good copy, and meanwhile agents serve what they hold. When the
disk is full a write fails as a whole and reading goes on.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from retia.model.ids import Namespace
from retia.model.objects import ObjectRef
from retia.sources.errors import StoreBusy, StoreDamaged, StoreError, StoreFull, StoreTooNew
from retia.sources.store import (
    ABSENT,
    HISTORY,
    Change,
    Changes,
    Delete,
    Document,
    Entry,
    Listing,
    Note,
    Put,
    PutRecord,
    Record,
    Source,
    StoredObject,
    Subscribers,
    Written,
    changes_of,
    check_expected,
    check_since,
    encode,
    plan,
)

APPLICATION_ID: Final = 0x52455449
"""``RETI``: marks the file as ours (``PRAGMA application_id``)."""

MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (
    (
        "CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID",
        "INSERT INTO meta VALUES ('revision', 0), ('record_revision', 0), ('forgotten', 0)",
        """CREATE TABLE objects (kind TEXT, namespace TEXT, name TEXT, document TEXT NOT NULL,
           revision INTEGER NOT NULL, created INTEGER NOT NULL, PRIMARY KEY (kind, namespace, name))""",
        "CREATE INDEX objects_by_revision ON objects (revision)",
        """CREATE TABLE deleted (kind TEXT, namespace TEXT, name TEXT, revision INTEGER NOT NULL,
           PRIMARY KEY (kind, namespace, name)) WITHOUT ROWID""",
        "CREATE INDEX deleted_by_revision ON deleted (revision)",
        """CREATE TABLE records (space TEXT, key TEXT, value BLOB NOT NULL, revision INTEGER NOT NULL,
           PRIMARY KEY (space, key)) WITHOUT ROWID""",
    ),
    (
        "ALTER TABLE objects ADD COLUMN path TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE objects ADD COLUMN line INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE objects ADD COLUMN owner TEXT NOT NULL DEFAULT ''",
        "CREATE TABLE writes (revision INTEGER PRIMARY KEY, time INTEGER NOT NULL, reason TEXT NOT NULL)",
        """CREATE TABLE changes (revision INTEGER, kind TEXT, namespace TEXT, name TEXT,
           before TEXT, after TEXT, path TEXT NOT NULL, line INTEGER NOT NULL, owner TEXT NOT NULL,
           PRIMARY KEY (revision, kind, namespace, name)) WITHOUT ROWID""",
    ),
)
"""Statements that lead from schema version i to i + 1; what has been released is never edited."""

SCHEMA_VERSION: Final = len(MIGRATIONS)
TOMBSTONES: Final = 10_000
"""Deletions that are remembered for watchers; arbitrary, far beyond one batch."""

_FULL: Final = 13
_CORRUPT: Final = (11, 26)
_BUSY: Final = (5, 6)
_IO_ERROR: Final = 10
"""Primary result codes, https://www.sqlite.org/rescode.html"""

_NEARLY_FULL_BYTES: Final = 1 << 20
_OBJECT = "kind, namespace, name, document, revision, created, path, line, owner"


class SqliteStore:
    """Implements :class:`retia.sources.store.Store`. Close it, or use it in a ``with`` statement.

    Raises, when it can't be opened: :class:`~retia.sources.errors.StoreBusy`,
    :class:`~retia.sources.errors.StoreDamaged`, :class:`~retia.sources.errors.StoreTooNew`,
    :class:`~retia.sources.errors.StoreFull` or plain ``StoreError``.
    """

    def __init__(
        self, path: Path, *, migrations: Sequence[Sequence[str]] = MIGRATIONS, tombstones: int = TOMBSTONES
    ) -> None:
        self.path = path
        self.notes: list[str] = []
        """What a person should know about the opening, for the log."""
        self._tombstones = tombstones
        self._thread_lock = threading.RLock()
        self._subscribers = Subscribers()
        self._lock_fd = _hold(path)
        try:
            self._db = _connect(path)
            try:
                self._open(migrations)
            except BaseException:
                self._db.close()
                raise
        except BaseException:
            os.close(self._lock_fd)
            raise

    def __enter__(self) -> SqliteStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        with self._thread_lock:
            if self._lock_fd >= 0:
                self._db.close()
                os.close(self._lock_fd)
                self._lock_fd = -1

    def revision(self) -> int:
        with self._reading():
            return self._meta("revision")

    def get(self, ref: ObjectRef) -> StoredObject | None:
        with self._reading():
            return self._get(ref)

    def list(self, kind: str = "", namespace: str = "") -> Listing:
        with self._reading():
            rows = self._db.execute(
                f"SELECT {_OBJECT} FROM objects WHERE (?1 = '' OR kind = ?1) AND (?2 = '' OR namespace = ?2)"
                " ORDER BY kind, namespace, name",
                (kind, namespace),
            )
            return Listing(self._meta("revision"), tuple(map(_object, rows)))

    def changes(self, since: int) -> Changes:
        with self._reading():
            revision = self._meta("revision")
            check_since(since, revision, self._meta("forgotten"))
            changed = self._db.execute(
                f"SELECT {_OBJECT} FROM objects WHERE revision > ? ORDER BY kind, namespace, name", (since,)
            )
            deleted = self._db.execute(
                "SELECT kind, namespace, name FROM deleted WHERE revision > ?1 AND ?1 > 0"
                " ORDER BY kind, namespace, name",
                (since,),
            )
            return Changes(revision, tuple(map(_object, changed)), tuple(map(_ref, deleted)))

    def subscribe(self, wake: Callable[[], None]) -> Callable[[], None]:
        return self._subscribers.add(wake)

    def write(
        self, changes: Sequence[Put | Delete], *, dry_run: bool = False, note: Note | None = None
    ) -> Written:
        with self._writing():
            before = self._meta("revision")
            results, pending = plan(self._get, changes, before + 1)
            if dry_run or not pending:
                return Written(before, results)
            real = changes_of(self._get, pending, before + 1)
            for ref, new in pending.items():
                self._apply(ref, new, before + 1)
            if not real:
                return Written(before, results)
            if note is not None:
                self._remember(before + 1, note, real)
            self._set_meta("revision", before + 1)
            self._forget()
        self._subscribers.notify()
        return Written(before + 1, results)

    def history(
        self, ref: ObjectRef | None = None, revision: int = 0, limit: int = HISTORY
    ) -> tuple[Entry, ...]:
        mine = "" if ref is None else "WHERE kind = ?4 AND namespace = ?5 AND name = ?6"
        with self._reading():
            writes = self._db.execute(
                "SELECT revision, time, reason FROM writes WHERE (?1 = 0 OR revision = ?1)"
                f" AND (?3 = '' OR revision IN (SELECT revision FROM changes {mine}))"
                " ORDER BY revision DESC LIMIT ?2",
                (revision, limit, mine, *(_key(ref) if ref else ())),
            ).fetchall()
            return tuple(Entry(r, Note(at, why), self._changes(r, ref)) for r, at, why in writes)

    def _changes(self, revision: int, ref: ObjectRef | None) -> tuple[Change, ...]:
        rows = self._db.execute(
            "SELECT kind, namespace, name, before, after, path, line, owner FROM changes WHERE revision = ?"
            " ORDER BY kind, namespace, name",
            (revision,),
        )
        found = (
            Change(_ref(row), _document(row[3]), _document(row[4]), Source(row[5], row[6], row[7]))
            for row in rows
        )
        return tuple(change for change in found if ref in (None, change.ref))

    def record(self, space: str, key: str) -> Record | None:
        with self._reading():
            return self._record(space, key)

    def records(self, space: str) -> tuple[Record, ...]:
        with self._reading():
            rows = self._db.execute(
                "SELECT key, value, revision FROM records WHERE space = ? ORDER BY key", (space,)
            )
            return tuple(Record(*row) for row in rows)

    def write_records(self, changes: Sequence[PutRecord]) -> int:
        with self._writing():
            revision = self._meta("record_revision") + 1
            for change in changes:
                self._write_record(change, revision)
            self._set_meta("record_revision", revision)
            return revision

    # Opening.

    def _open(self, migrations: Sequence[Sequence[str]]) -> None:
        with translated(self.path):
            version = _checked_version(self._db, self.path, len(migrations))
            self._db.execute("PRAGMA journal_mode = WAL").fetchone()
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute("PRAGMA journal_size_limit = 16777216")
            if version < len(migrations):
                self._migrate(version, migrations)
        self._keep_good()

    def _migrate(self, version: int, migrations: Sequence[Sequence[str]]) -> None:
        if version:
            aside = self.path.with_name(f"{self.path.name}.v{version}")
            copy_database(self._db, aside)
            self.notes.append(f"schema version {version} is brought to {len(migrations)}; a copy is {aside}")
        with self._transaction():
            for number, statements in enumerate(migrations[version:], start=version + 1):
                for statement in statements:
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version = {number}")
            self._db.execute(f"PRAGMA application_id = {APPLICATION_ID}")

    def _keep_good(self) -> None:
        try:
            with self._reading():
                copy_database(self._db, good_copy(self.path))
        except StoreError as error:
            self.notes.append(f"no copy of the checked store was made: {error}")

    # Reading and writing under the lock.

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        with self._thread_lock, translated(self.path):
            yield

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        with self._thread_lock, translated(self.path), self._transaction():
            yield

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:  # SQLite ends it by itself after some errors
                self._db.execute("ROLLBACK")
            raise

    def _meta(self, key: str) -> int:
        return int(self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()[0])

    def _set_meta(self, key: str, value: int) -> None:
        self._db.execute("UPDATE meta SET value = ? WHERE key = ?", (value, key))

    def _get(self, ref: ObjectRef) -> StoredObject | None:
        row = self._db.execute(
            f"SELECT {_OBJECT} FROM objects WHERE kind = ? AND namespace = ? AND name = ?", _key(ref)
        ).fetchone()
        return _object(row) if row else None

    def _apply(self, ref: ObjectRef, new: StoredObject | None, revision: int) -> None:
        if new is None:
            self._db.execute("DELETE FROM objects WHERE kind = ? AND namespace = ? AND name = ?", _key(ref))
            self._db.execute("INSERT OR REPLACE INTO deleted VALUES (?, ?, ?, ?)", (*_key(ref), revision))
        else:
            source = new.source
            row = (*_key(ref), encode(new.document), new.revision, new.created)
            self._db.execute(
                f"INSERT OR REPLACE INTO objects ({_OBJECT}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (*row, source.path, source.line, source.owner),
            )
            self._db.execute("DELETE FROM deleted WHERE kind = ? AND namespace = ? AND name = ?", _key(ref))

    def _remember(self, revision: int, note: Note, changes: Sequence[Change]) -> None:
        self._db.execute("INSERT INTO writes VALUES (?, ?, ?)", (revision, note.time, note.reason))
        self._db.executemany(
            "INSERT INTO changes VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [(revision, *_key(c.ref), *_change(c)) for c in changes],
        )
        surplus = self._db.execute(
            "SELECT revision FROM writes ORDER BY revision DESC LIMIT 1 OFFSET ?", (HISTORY,)
        ).fetchone()
        if surplus:
            self._db.execute("DELETE FROM writes WHERE revision <= ?", surplus)
            self._db.execute("DELETE FROM changes WHERE revision <= ?", surplus)

    def _forget(self) -> None:
        surplus = self._db.execute(
            "SELECT revision FROM deleted ORDER BY revision DESC LIMIT 1 OFFSET ?", (self._tombstones,)
        ).fetchone()
        if surplus:
            self._db.execute("DELETE FROM deleted WHERE revision <= ?", surplus)
            self._set_meta("forgotten", surplus[0])

    def _record(self, space: str, key: str) -> Record | None:
        row = self._db.execute(
            "SELECT key, value, revision FROM records WHERE space = ? AND key = ?", (space, key)
        ).fetchone()
        return Record(*row) if row else None

    def _write_record(self, change: PutRecord, revision: int) -> None:
        if change.expected is not None:
            old = self._record(change.space, change.key)
            check_expected(f"{change.space}/{change.key}", change.expected, old.revision if old else ABSENT)
        if change.value is None:
            self._db.execute("DELETE FROM records WHERE space = ? AND key = ?", (change.space, change.key))
        else:
            row = (change.space, change.key, change.value, revision)
            self._db.execute("INSERT OR REPLACE INTO records VALUES (?, ?, ?, ?)", row)


def check_file(path: Path) -> None:
    """That the file is a store which this version can open; raises as :class:`SqliteStore` does. Nothing is
    changed."""
    with (
        translated(path),
        contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db,
    ):
        if not _checked_version(db, path, SCHEMA_VERSION):
            raise _damaged(path, "it is empty")


def _checked_version(db: sqlite3.Connection, path: Path, newest: int) -> int:
    """The schema version of a sound file; 0: a new one."""
    version, application = (
        int(db.execute(f"PRAGMA {name}").fetchone()[0]) for name in ("user_version", "application_id")
    )
    empty = not db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if application != APPLICATION_ID and not (empty and version == 0):
        raise _damaged(path, "it is a SQLite file of another program")
    if version > newest:
        raise StoreTooNew(
            f"store {path} has schema version {version}, written by a newer Retia; this one knows versions "
            f"up "
            f"to {newest}. Upgrade Retia, or restore a backup made before the upgrade"
        )
    problems = [str(row[0]) for row in db.execute("PRAGMA quick_check(5)")]
    if problems != ["ok"]:
        raise _damaged(path, "; ".join(p.splitlines()[-1] for p in problems))
    return version


def good_copy(path: Path) -> Path:
    """Where the copy of a store lies that passed its last check."""
    return path.with_name(path.name + ".good")


def copy_database(source: sqlite3.Connection, target: Path) -> None:
    """Copies a database by SQLite's backup interface to ``target`` (mode 0600), which appears whole or not at
    all."""
    partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
    try:
        os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
        with contextlib.closing(sqlite3.connect(partial, isolation_level=None)) as copy:
            source.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE").fetchone()
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turns SQLite's and the system's errors into this package's, with the file's name and the next step."""
    try:
        yield
    except sqlite3.Error as error:
        raise _explained(path, error) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _full(path) from error
        raise StoreError(f"store {path}: {error.strerror or error}") from error


def _explained(path: Path, error: sqlite3.Error) -> StoreError:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == _FULL or (code == _IO_ERROR and _nearly_full(path)):
        return _full(path)
    if code in _CORRUPT:
        return _damaged(path, str(error))
    if code in _BUSY:
        return StoreBusy(f"store {path} is locked by another program ({error}); close that and try again")
    return StoreError(f"store {path}: {error}")


def _full(path: Path) -> StoreFull:
    return StoreFull(
        f"store {path}: no space left on the device; nothing was written. Free some space and repeat"
    )


def _nearly_full(path: Path) -> bool:
    try:
        return shutil.disk_usage(path.parent).free < _NEARLY_FULL_BYTES
    except OSError:
        return False


def _damaged(path: Path, detail: str) -> StoreDamaged:
    good = good_copy(path)
    if good.exists():
        remedy = f"its last good copy is {good}: move the damaged file away and copy that to its place"
    else:
        remedy = "restore a backup with 'retia restore'"
    return StoreDamaged(f"store {path} is damaged ({detail}) and was left as it is; {remedy}")


def _hold(path: Path) -> int:
    """Takes the store for this process; returns the descriptor that holds it."""
    lock = path.with_name(path.name + ".lock")
    with translated(path):
        fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with contextlib.suppress(OSError):  # only for the message below; a full disk must not keep us out
            os.ftruncate(fd, 0)
            os.write(fd, b"%d\n" % os.getpid())
    except BlockingIOError as error:
        holder = os.read(fd, 32).decode(errors="replace").strip() or "unknown"
        os.close(fd)
        raise StoreBusy(
            f"store {path} is in use by process {holder}: one controller at a time may use it"
        ) from error
    except OSError:
        os.close(fd)
        with translated(path):
            raise
    return fd


def holder_of(path: Path) -> int | None:
    """The process that has the store open (0: unknown), or ``None``."""
    try:
        fd = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None
    except BlockingIOError:
        text = os.read(fd, 32).strip()
        return int(text) if text.isdigit() else 0
    finally:
        os.close(fd)


def _connect(path: Path) -> sqlite3.Connection:
    with translated(path):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        return sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)


def _key(ref: ObjectRef) -> tuple[str, str, str]:
    return ref.kind, ref.namespace, ref.name


def _ref(row: tuple[Any, ...]) -> ObjectRef:
    return ObjectRef(row[0], Namespace(row[1]), row[2])


def _object(row: tuple[Any, ...]) -> StoredObject:
    return StoredObject(_ref(row), json.loads(row[3]), row[4], row[5], Source(row[6], row[7], row[8]))


def _change(change: Change) -> tuple[str | int | None, ...]:
    """The rest of a change's row."""
    before, after = (None if d is None else encode(d) for d in (change.before, change.after))
    source = change.source
    return before, after, source.path, source.line, source.owner


def _document(text: str | None) -> Document | None:
    return None if text is None else json.loads(text)
