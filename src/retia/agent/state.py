"""What the agent keeps on disk, so that it can serve without a controller.

One SQLite file: the configuration that each proxy holds, the *standby copy* (what a workload might call and
has not called yet, which is read on demand and takes no memory), the table of names, and the workloads with
their addresses. Wire bytes are stored once by their hash, however many proxies share them.

Memory is the truth and the disk follows: changes are collected and written by a thread every few
milliseconds; what is not written yet is found before the disk is asked. A full disk or a damaged file is said
once (:attr:`State.problem`), nothing else stops; a damaged file is put aside and a new one begun.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sqlite3
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog

from retia.model.resource import Name, Resource, TypeUrl

SCHEMA_VERSION = 1
WRITE_DELAY_S = 0.03
RETRY_S = 2.0
MAX_WAITING = 200_000
"""Changes that wait for a disk that takes none; beyond that the standby copy's are dropped."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS blob (hash BLOB PRIMARY KEY, wire BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS held (
    owner TEXT, type TEXT, name TEXT, version TEXT NOT NULL, hash BLOB NOT NULL, extra TEXT NOT NULL,
    PRIMARY KEY (owner, type, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS standby (
    owner TEXT, type TEXT, name TEXT, version TEXT NOT NULL, hash BLOB NOT NULL, extra TEXT NOT NULL,
    PRIMARY KEY (owner, type, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS alias (
    owner TEXT, type TEXT, alias TEXT, name TEXT NOT NULL, PRIMARY KEY (owner, type, alias)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS alias_of ON alias (owner, type, name);
CREATE TABLE IF NOT EXISTS entry (
    kind TEXT, key TEXT, value TEXT NOT NULL, PRIMARY KEY (kind, key)) WITHOUT ROWID;
"""
_SHORT = {t.short: t for t in TypeUrl}

Key = tuple[str, ...]
_log = structlog.get_logger("retia.agent.state")


@dataclass(slots=True)
class _Batch:
    """Changes by row; ``None`` deletes."""

    resources: dict[Key, Resource | None] = field(default_factory=dict)
    """By (table, owner, short type, name)."""
    entries: dict[Key, str | None] = field(default_factory=dict)
    """By (kind, key)."""
    dropped: dict[Key, None] = field(default_factory=dict)
    """(table, owner): everything of an owner goes, before the rest of the batch."""

    def __len__(self) -> int:
        return len(self.resources) + len(self.entries) + len(self.dropped)

    def under(self, newer: _Batch) -> _Batch:
        """Both, ``newer`` winning."""
        old = {k: v for k, v in self.resources.items() if (k[0], k[1]) not in newer.dropped}
        return _Batch(
            {**old, **newer.resources}, {**self.entries, **newer.entries}, {**self.dropped, **newer.dropped}
        )


class State:
    """The store. ``refill`` is called when a damaged file was replaced: whoever holds state puts it again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._waiting = _Batch()
        self._writing = _Batch()
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._pause_s = WRITE_DELAY_S
        self.problem = ""
        """Why the disk does not follow, as a sentence; empty: it does."""
        self.refill: Callable[[], None] = lambda: None
        self._reader = self._open()

    def close(self) -> None:
        self._reader.close()

    # Resources

    def put(self, table: str, owner: str, resource: Resource) -> None:
        """Keep a resource of a proxy (``held``) or of a workload's standby copy (``standby``)."""
        self._waiting.resources[(table, owner, resource.type.short, resource.name)] = resource
        self._bound()
        self._changed()

    def remove(self, table: str, owner: str, name: Name) -> None:
        self._waiting.resources[(table, owner, name.type.short, name.name)] = None
        self._changed()

    def drop(self, table: str, owner: str) -> None:
        """Forget everything of that owner."""
        for key in [k for k in self._waiting.resources if k[:2] == (table, owner)]:
            del self._waiting.resources[key]
        self._waiting.dropped[(table, owner)] = None
        self._changed()

    def held(self, proxy: str) -> list[Resource]:
        """What a proxy held when this program last ran. To be called before anything is put."""
        query = "SELECT type, name, version, wire, extra FROM held JOIN blob USING (hash) WHERE owner = ?"
        return [_resource(*row) for row in self._rows(query, (proxy,))]

    def standby(self, workload: str, name: Name) -> Resource | None:
        """The standby copy of a resource, found by its name or an alias."""
        for batch in (self._waiting, self._writing):
            key = ("standby", workload, name.type.short, name.name)
            if key in batch.resources:
                return batch.resources[key]
            if ("standby", workload) in batch.dropped:
                return None
        return self._standby_on_disk(workload, name) or self._standby_waiting(workload, name)

    def standby_names(self, workload: str) -> set[Name]:
        """Everything in a workload's standby copy."""
        rows = self._rows("SELECT type, name FROM standby WHERE owner = ?", (workload,))
        found = {Name(_SHORT[kind], name) for kind, name in rows}
        for batch in (self._writing, self._waiting):
            if ("standby", workload) in batch.dropped:
                found.clear()
            for (table, owner, kind, name), resource in batch.resources.items():
                if (table, owner) == ("standby", workload):
                    (found.discard if resource is None else found.add)(Name(_SHORT[kind], name))
        return found

    def _standby_on_disk(self, workload: str, name: Name) -> Resource | None:
        query = (
            "SELECT type, name, version, wire, extra FROM standby JOIN blob USING (hash)"
            " WHERE owner = ?1 AND type = ?2 AND name = coalesce("
            "(SELECT name FROM alias WHERE owner = ?1 AND type = ?2 AND alias = ?3), ?3)"
        )
        rows = self._rows(query, (workload, name.type.short, name.name))
        return _resource(*rows[0]) if rows else None

    def _standby_waiting(self, workload: str, name: Name) -> Resource | None:
        for batch in (self._waiting, self._writing):
            for key, resource in batch.resources.items():
                if (
                    key[:2] == ("standby", workload)
                    and resource is not None
                    and name.name in resource.aliases
                ):
                    return resource
        return None

    # Other things, as JSON

    def put_entry(self, kind: str, key: str, value: Any) -> None:
        self._waiting.entries[(kind, key)] = json.dumps(value, separators=(",", ":"))
        self._changed()

    def remove_entry(self, kind: str, key: str) -> None:
        self._waiting.entries[(kind, key)] = None
        self._changed()

    def entries(self, kind: str) -> dict[str, Any]:
        """All of a kind as they were when this program last ran. To be called before anything is put."""
        rows = self._rows("SELECT key, value FROM entry WHERE kind = ?", (kind,))
        return {key: json.loads(value) for key, value in rows}

    # The disk

    async def run(self) -> None:
        """Write what changes until cancelled; then what is left is written once more."""
        try:
            while True:
                await self._wake.wait()
                await asyncio.sleep(self._pause_s)
                self._wake.clear()
                await self._write_waiting()
        finally:
            self.write_now()

    async def flush(self, timeout_s: float = 2.0) -> None:
        """Until all changes so far are on disk, or the time is over (a broken disk holds nothing up)."""
        deadline = time.monotonic() + timeout_s
        while (self._waiting or self._writing) and not self.problem and time.monotonic() < deadline:
            self._idle.clear()
            try:
                async with asyncio.timeout_at(asyncio.get_running_loop().time() + 0.2):
                    await self._idle.wait()
            except TimeoutError:
                continue

    def _changed(self) -> None:
        self._wake.set()

    def _bound(self) -> None:
        if len(self._waiting.resources) > MAX_WAITING:
            for key in [k for k in self._waiting.resources if k[0] == "standby"]:
                del self._waiting.resources[key]

    async def _write_waiting(self) -> None:
        self._writing, self._waiting = self._waiting, _Batch()
        try:
            await asyncio.to_thread(_write, self._path, self._writing)
        except (sqlite3.Error, OSError) as error:
            self._failed(error)
        else:
            if self.problem:
                _log.info("state is kept on disk again", path=str(self._path))
            self.problem = ""
            self._pause_s = WRITE_DELAY_S
            self._writing = _Batch()
        self._idle.set()

    def write_now(self) -> None:
        """Write what waits, here and now."""
        batch = self._writing.under(self._waiting)
        try:
            if batch:
                _write(self._path, batch)
        except (sqlite3.Error, OSError) as error:
            _log.error("the last changes of the state were lost", path=str(self._path), error=str(error))

    def _failed(self, error: Exception) -> None:
        self._waiting = self._writing.under(self._waiting)
        self._writing = _Batch()
        self._wake.set()
        first = not self.problem
        self._pause_s = RETRY_S
        self.problem = (
            f"state can't be kept in {self._path}: {error}; the proxies go on with what is in memory"
        )
        if first:
            _log.error(self.problem)
        if is_damage(error):
            self._replace(error)

    def _rows(self, query: str, values: tuple[str, ...]) -> list[Any]:
        try:
            return self._reader.execute(query, values).fetchall()
        except sqlite3.Error as error:
            if not self.problem:
                self.problem = f"state can't be read from {self._path}: {error}"
                _log.error(self.problem)
            return []

    def _open(self) -> sqlite3.Connection:
        try:
            return _connect(self._path)
        except (sqlite3.Error, OSError) as error:
            return self._replace(error)

    def _replace(self, error: Exception) -> sqlite3.Connection:
        """Put a damaged file aside and begin a new one; in memory if that fails too."""
        aside = self._path.with_suffix(".damaged")
        try:
            for suffix in ("-wal", "-shm"):
                self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
            if self._path.exists():
                self._path.replace(aside)
            connection = _connect(self._path)
        except (sqlite3.Error, OSError) as second:
            self.problem = f"state can't be kept in {self._path}: {second}"
            _log.error(self.problem)
            connection = sqlite3.connect(":memory:", check_same_thread=False)
            connection.executescript(_SCHEMA)
        else:
            self._pause_s = WRITE_DELAY_S
            self.problem = f"{self._path} was damaged ({error}); it is now {aside.name}, a new one was begun"
            _log.error(self.problem)
        self._reader = connection
        self.refill()
        return connection


def is_damage(error: Exception) -> bool:
    """Whether the file is of no use any more: not full, not locked, not read-only, but wrong.

    A file that was written over while it is open shows as an I/O error (a short read).
    """
    if isinstance(error, _Removed):
        return True
    codes = (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
    return isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", 0) & 0xFF in codes


class _Removed(sqlite3.DatabaseError):
    """Somebody has removed the file."""


def _connect(path: Path) -> sqlite3.Connection:
    """Raises ``sqlite3.Error`` where the file is damaged or can't be written."""
    connection = sqlite3.connect(path, timeout=5.0, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA cache_size = -512")
        connection.executescript(_SCHEMA)
        _migrate(connection)
        answer = connection.execute("PRAGMA quick_check(1)").fetchone()
        if answer[0] != "ok":
            raise sqlite3.DatabaseError(answer[0])
        path.chmod(0o600)
    except (sqlite3.Error, OSError):
        connection.close()
        raise
    return connection


def _migrate(connection: sqlite3.Connection) -> None:
    row = connection.execute("SELECT value FROM meta WHERE key = 'schema'").fetchone()
    found = int(row[0]) if row else SCHEMA_VERSION
    if found > SCHEMA_VERSION:
        raise sqlite3.DatabaseError(f"it was written by a newer version (schema {found})")
    with connection:
        connection.execute("INSERT OR REPLACE INTO meta VALUES ('schema', ?)", (str(SCHEMA_VERSION),))


def _write(path: Path, batch: _Batch) -> None:
    """One batch as one transaction, on a connection of its own (it runs in a thread)."""
    if not path.exists():
        raise _Removed("the file was removed")
    connection = sqlite3.connect(path, timeout=5.0)
    try:
        connection.execute("PRAGMA synchronous = NORMAL")
        with connection:
            for table, owner in batch.dropped:
                connection.execute(f"DELETE FROM {_table(table)} WHERE owner = ?", (owner,))
                if table == "standby":
                    connection.execute("DELETE FROM alias WHERE owner = ?", (owner,))
            _write_resources(connection, batch.resources.items())
            for (kind, key), value in batch.entries.items():
                if value is None:
                    connection.execute("DELETE FROM entry WHERE kind = ? AND key = ?", (kind, key))
                else:
                    connection.execute("INSERT OR REPLACE INTO entry VALUES (?, ?, ?)", (kind, key, value))
            if batch.dropped:
                connection.execute(
                    "DELETE FROM blob WHERE hash NOT IN (SELECT hash FROM held)"
                    " AND hash NOT IN (SELECT hash FROM standby)"
                )
    finally:
        connection.close()


def _write_resources(connection: sqlite3.Connection, rows: Iterable[tuple[Key, Resource | None]]) -> None:
    for (table, owner, kind, name), resource in rows:
        if table == "standby":
            connection.execute(
                "DELETE FROM alias WHERE owner = ? AND type = ? AND name = ?", (owner, kind, name)
            )
        if resource is None:
            statement = f"DELETE FROM {_table(table)} WHERE owner = ? AND type = ? AND name = ?"
            connection.execute(statement, (owner, kind, name))
            continue
        digest = hashlib.blake2b(resource.wire, digest_size=16).digest()
        connection.execute("INSERT OR IGNORE INTO blob VALUES (?, ?)", (digest, resource.wire))
        connection.execute(
            f"INSERT OR REPLACE INTO {_table(table)} VALUES (?, ?, ?, ?, ?, ?)",
            (owner, kind, name, resource.version, digest, _extra(resource)),
        )
        if table == "standby":
            aliases = [(owner, kind, alias, name) for alias in resource.aliases if alias != name]
            connection.executemany("INSERT OR REPLACE INTO alias VALUES (?, ?, ?, ?)", aliases)


def _table(name: str) -> str:
    return {"held": "held", "standby": "standby"}[name]


def _extra(resource: Resource) -> str:
    value = {
        "aliases": resource.aliases,
        "refs": [(ref.type.short, ref.name) for ref in resource.refs],
        "exists": resource.exists,
        "security": resource.security,
    }
    return json.dumps(value, separators=(",", ":"))


def _resource(kind: str, name: str, version: str, wire: bytes, extra: str) -> Resource:
    more = json.loads(extra)
    return Resource(
        type=_SHORT[kind],
        name=name,
        version=version,
        wire=wire,
        aliases=tuple(more["aliases"]),
        refs=tuple(Name(_SHORT[t], n) for t, n in more["refs"]),
        exists=more["exists"],
        security=more["security"],
    )
