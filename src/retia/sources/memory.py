"""A store in memory: for tests, and the model of what every store does."""

from __future__ import annotations

import builtins
import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

from retia.model.objects import ObjectRef
from retia.sources.store import (
    ABSENT,
    HISTORY,
    Changes,
    Delete,
    Entry,
    Listing,
    Note,
    Put,
    PutRecord,
    Record,
    StoredObject,
    Subscribers,
    Written,
    changes_of,
    check_expected,
    check_since,
    plan,
    sort_key,
)


class MemoryStore:
    """Implements :class:`retia.sources.store.Store`; remembers the last ``tombstones`` deletions."""

    def __init__(self, tombstones: int = 10_000) -> None:
        self._lock = threading.RLock()
        self._objects: dict[ObjectRef, StoredObject] = {}
        self._deleted: dict[ObjectRef, int] = {}
        self._revision = 0
        self._forgotten = 0
        self._tombstones = tombstones
        self._records: dict[tuple[str, str], Record] = {}
        self._record_revision = 0
        self._subscribers = Subscribers()
        self._history: builtins.list[Entry] = []

    def revision(self) -> int:
        return self._revision

    def get(self, ref: ObjectRef) -> StoredObject | None:
        return self._objects.get(ref)

    def list(self, kind: str = "", namespace: str = "") -> Listing:
        with self._lock:
            found = [
                o
                for o in self._objects.values()
                if kind in ("", o.ref.kind) and namespace in ("", o.ref.namespace)
            ]
            return Listing(self._revision, _sorted(found))

    def changes(self, since: int) -> Changes:
        with self._lock:
            check_since(since, self._revision, self._forgotten)
            changed = _sorted([o for o in self._objects.values() if o.revision > since])
            deleted = sorted((r for r, at in self._deleted.items() if at > since), key=sort_key)
            return Changes(self._revision, changed, tuple(deleted) if since else ())

    def subscribe(self, wake: Callable[[], None]) -> Callable[[], None]:
        return self._subscribers.add(wake)

    def write(
        self, changes: Sequence[Put | Delete], *, dry_run: bool = False, note: Note | None = None
    ) -> Written:
        with self._lock:
            revision = self._revision + 1
            results, pending = plan(self._objects.get, changes, revision)
            real = changes_of(self._objects.get, pending, revision)
            if dry_run:
                return Written(self._revision, results)
            for ref, new in pending.items():
                self._apply(ref, new, revision)
            if not real:
                return Written(self._revision, results)
            if note is not None:
                self._history = [Entry(revision, note, real), *self._history][:HISTORY]
            self._revision = revision
            self._forget()
        self._subscribers.notify()
        return Written(revision, results)

    def history(
        self, ref: ObjectRef | None = None, revision: int = 0, limit: int = HISTORY
    ) -> tuple[Entry, ...]:
        found = (e for e in self._history if revision in (0, e.revision))
        if ref is not None:
            mine = (replace(e, changes=tuple(c for c in e.changes if c.ref == ref)) for e in found)
            found = (e for e in mine if e.changes)
        return tuple(found)[:limit]

    def record(self, space: str, key: str) -> Record | None:
        return self._records.get((space, key))

    def records(self, space: str) -> tuple[Record, ...]:
        with self._lock:
            found = [r for (s, _), r in self._records.items() if s == space]
        return tuple(sorted(found, key=lambda r: r.key))

    def write_records(self, changes: Sequence[PutRecord]) -> int:
        with self._lock:
            revision = self._record_revision + 1
            new = dict(self._records)
            for change in changes:
                where = (change.space, change.key)
                old = new.get(where)
                check_expected(
                    f"{change.space}/{change.key}", change.expected, old.revision if old else ABSENT
                )
                if change.value is None:
                    new.pop(where, None)
                else:
                    new[where] = Record(change.key, change.value, revision)
            self._records = new
            self._record_revision = revision
            return revision

    def close(self) -> None:
        """Nothing to give back."""

    def _apply(self, ref: ObjectRef, new: StoredObject | None, revision: int) -> None:
        if new is None:
            del self._objects[ref]
            self._deleted[ref] = revision
        else:
            copied = json.loads(json.dumps(new.document))
            self._objects[ref] = replace(new, document=copied)
            self._deleted.pop(ref, None)

    def _forget(self) -> None:
        while len(self._deleted) > self._tombstones:
            oldest = min(self._deleted, key=lambda r: self._deleted[r])
            self._forgotten = max(self._forgotten, self._deleted.pop(oldest))


def _sorted(objects: builtins.list[StoredObject]) -> tuple[StoredObject, ...]:
    return tuple(sorted(objects, key=lambda o: sort_key(o.ref)))
