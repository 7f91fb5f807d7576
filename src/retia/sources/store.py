"""The interface of all stores, and the rules of a write as one pure function.

A store keeps *objects* (configuration, watched) and *records* (what the controller remembers, not watched),
each with its own revision counter. The kinds of store differ in where the bytes lie; what a batch does, when
it conflicts and which revision it gets is decided here by :func:`plan`, for all of them alike.

Watching is pull: a subscriber is only told *that* there is something new, then asks :meth:`Objects.changes`
since the revision it knows. So nothing queues up behind a slow reader, and changes that came meanwhile are
merged.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Protocol

from retia.model.objects import ObjectRef
from retia.sources.errors import Compacted, Conflict

Document = Mapping[str, Any]
"""A raw configuration document: what JSON can hold."""

ABSENT = 0
"""As ``expected``: the object or record must not exist."""


class Outcome(StrEnum):
    """What a write did to one object."""

    CREATED = "created"
    CONFIGURED = "configured"
    UNCHANGED = "unchanged"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True)
class Source:
    """Where an object was applied from: a file as its user named it, and on whose behalf."""

    path: str = ""
    line: int = 0
    owner: str = ""
    """Whose objects are deleted together when they leave its files (``apply --prune``); empty: nobody's."""


NO_SOURCE = Source()


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object as it lies in the store. Don't change ``document``: it is shared."""

    ref: ObjectRef
    document: Document
    revision: int
    """Of its last change; the ``resourceVersion`` that users see."""
    created: int
    """The revision at which it came into being; smaller is older."""
    source: Source = NO_SOURCE


@dataclass(frozen=True, slots=True)
class Put:
    """Create or replace an object. ``expected`` is the revision it must have (:data:`ABSENT`: it must not
    exist); ``None``: whatever it is. A document equal to the stored one changes nothing."""

    ref: ObjectRef
    document: Document
    expected: int | None = None
    source: Source | None = None
    """``None``: as it was. A change of the source alone gives no new revision."""


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove an object; nothing happens where there is none, unless ``expected`` says that there is."""

    ref: ObjectRef
    expected: int | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one change; ``revision`` is the object's (0: it doesn't exist)."""

    ref: ObjectRef
    outcome: Outcome
    revision: int


@dataclass(frozen=True, slots=True)
class Written:
    """What became of a batch; ``revision`` is the store's after it."""

    revision: int
    results: tuple[Result, ...]


@dataclass(frozen=True, slots=True)
class Listing:
    """Objects at one revision, sorted by kind, namespace and name."""

    revision: int
    objects: tuple[StoredObject, ...]


@dataclass(frozen=True, slots=True)
class Changes:
    """What differs from an earlier revision: objects as they are now, and what is gone."""

    revision: int
    changed: tuple[StoredObject, ...] = ()
    deleted: tuple[ObjectRef, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.changed or self.deleted)


@dataclass(frozen=True, slots=True)
class Record:
    """A value that the controller remembers. ``revision`` grows with every write of it."""

    key: str
    value: bytes
    revision: int


@dataclass(frozen=True, slots=True)
class PutRecord:
    """Write a record; ``expected`` as for :class:`Put`; ``value=None`` removes it."""

    space: str
    key: str
    value: bytes | None
    expected: int | None = None


@dataclass(frozen=True, slots=True)
class Note:
    """What is remembered of a write beside its changes."""

    time: int
    """Seconds since 1970."""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """One object before and after a write; ``None``: it was not there."""

    ref: ObjectRef
    before: Document | None
    after: Document | None
    source: Source = NO_SOURCE
    """Where ``before`` came from."""

    @property
    def outcome(self) -> Outcome:
        if self.after is None:
            return Outcome.DELETED
        return Outcome.CREATED if self.before is None else Outcome.CONFIGURED


@dataclass(frozen=True, slots=True)
class Entry:
    """One write of the history."""

    revision: int
    note: Note
    changes: tuple[Change, ...]


HISTORY = 500
"""Writes that are remembered with what they replaced; arbitrary."""


class Objects(Protocol):
    """Configuration, read and watched."""

    def revision(self) -> int:
        """Of the last write; 0: nothing was ever written."""

    def get(self, ref: ObjectRef) -> StoredObject | None:
        """The object, or ``None``."""

    def list(self, kind: str = "", namespace: str = "") -> Listing:
        """All objects, or those of a kind, or of a namespace, or of both."""

    def changes(self, since: int) -> Changes:
        """What changed after revision ``since`` (0: everything there is). Raises
        :class:`~retia.sources.errors.Compacted` when deletions that old are forgotten, or when ``since`` lies
        in the future (the store was replaced by an older one)."""

    def subscribe(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Calls ``wake`` after every write, from the writer's thread, until the returned function is called.
        ``wake`` must be quick and must not raise."""


class Writable(Objects, Protocol):
    """Configuration that can be written."""

    def write(
        self, changes: Sequence[Put | Delete], *, dry_run: bool = False, note: Note | None = None
    ) -> Written:
        """All changes or none. Raises :class:`~retia.sources.errors.Conflict`, or another ``StoreError`` when
        the store cannot be written. With ``dry_run`` nothing is written, but everything else is as if.
        With a ``note`` the write is in the history."""

    def history(
        self, ref: ObjectRef | None = None, revision: int = 0, limit: int = HISTORY
    ) -> tuple[Entry, ...]:
        """The last writes that had a note, the newest first: all, those that changed an object (its changes
        alone are then given), or the one of a revision."""


class Records(Protocol):
    """What the controller remembers, in small spaces of keys."""

    def record(self, space: str, key: str) -> Record | None:
        """The record, or ``None``."""

    def records(self, space: str) -> tuple[Record, ...]:
        """All records of a space, sorted by key."""

    def write_records(self, changes: Sequence[PutRecord]) -> int:
        """All changes or none; returns the revision that the written records have. Raises as
        :meth:`Writable.write`."""


class Store(Writable, Records, Protocol):
    """Everything a controller needs."""

    def close(self) -> None:
        """Gives the store back; what was written stays."""


def plan(
    current: Callable[[ObjectRef], StoredObject | None], changes: Iterable[Put | Delete], revision: int
) -> tuple[tuple[Result, ...], dict[ObjectRef, StoredObject | None]]:
    """What a batch does to objects that are now as ``current`` says.

    ``revision`` is the one that the batch would get. Returns the results in the order of ``changes``, and
    what is to be written (``None``: removed). Changes of one object within a batch build upon one another.
    Raises :class:`~retia.sources.errors.Conflict` at the first change whose expectation isn't met.
    """
    results: list[Result] = []
    pending: dict[ObjectRef, StoredObject | None] = {}
    for change in changes:
        ref = change.ref
        old = pending[ref] if ref in pending else current(ref)
        check_expected(ref, change.expected, old.revision if old else ABSENT)
        if isinstance(change, Delete):
            if old is not None:
                pending[ref] = None
            results.append(Result(ref, Outcome.DELETED if old else Outcome.UNCHANGED, ABSENT))
        elif old is not None and same_document(old.document, change.document):
            if change.source not in (None, old.source):
                pending[ref] = replace(old, source=change.source)
            results.append(Result(ref, Outcome.UNCHANGED, old.revision))
        else:
            created = old.created if old else revision
            source = change.source or (old.source if old else NO_SOURCE)
            pending[ref] = StoredObject(ref, change.document, revision, created, source)
            results.append(Result(ref, Outcome.CONFIGURED if old else Outcome.CREATED, revision))
    return tuple(results), {ref: new for ref, new in pending.items() if new or current(ref)}


def changes_of(
    current: Callable[[ObjectRef], StoredObject | None],
    pending: Mapping[ObjectRef, StoredObject | None],
    revision: int,
) -> tuple[Change, ...]:
    """What of ``pending`` differs by more than its source, with what it replaces."""
    found = []
    for ref, new in pending.items():
        old = current(ref)
        if new is None or new.revision == revision:
            source = old.source if old else NO_SOURCE
            found.append(Change(ref, old.document if old else None, new.document if new else None, source))
    return tuple(sorted(found, key=lambda change: sort_key(change.ref)))


def same_document(one: Document, other: Document) -> bool:
    """Whether two documents say the same. Compared as JSON, because to Python ``1 == True``."""
    return encode(one) == encode(other)


def encode(document: Document) -> str:
    """A document as canonical JSON. Raises ``TypeError`` or ``ValueError`` for what JSON can't hold."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)


def check_expected(what: ObjectRef | str, expected: int | None, actual: int) -> None:
    """Raises :class:`~retia.sources.errors.Conflict` unless ``expected`` is ``None`` or ``actual``."""
    if expected is not None and expected != actual:
        raise Conflict(what, expected, actual)


def sort_key(ref: ObjectRef) -> tuple[str, str, str]:
    """The order of listings."""
    return ref.kind, ref.namespace, ref.name


async def watch(source: Objects, since: int, idle_s: float = 30.0) -> AsyncIterator[Changes]:
    """Yields what changed after ``since``, whenever something did, until cancelled.

    Writes that come while the consumer works are merged into one item. Raises
    :class:`~retia.sources.errors.Compacted` as :meth:`Objects.changes` does: list again and start anew.
    Without writes it looks by itself every ``idle_s`` seconds; the default is arbitrary, only a guard.
    """
    loop = asyncio.get_running_loop()
    something = asyncio.Event()

    def wake() -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody watches any more
            loop.call_soon_threadsafe(something.set)

    unsubscribe = source.subscribe(wake)
    try:
        while True:
            something.clear()
            changes = await asyncio.to_thread(source.changes, since)
            if changes:
                yield changes
            since = changes.revision
            with suppress(TimeoutError):
                async with asyncio.timeout(idle_s):
                    await something.wait()
    finally:
        unsubscribe()


class Subscribers:
    """The ``wake`` functions of a store."""

    def __init__(self) -> None:
        self._wakes: dict[object, Callable[[], None]] = {}

    def add(self, wake: Callable[[], None]) -> Callable[[], None]:
        token = object()
        self._wakes[token] = wake

        def remove() -> None:
            self._wakes.pop(token, None)

        return remove

    def notify(self) -> None:
        for wake in tuple(self._wakes.values()):
            wake()


def check_since(since: int, revision: int, forgotten: int) -> None:
    """Raises :class:`~retia.sources.errors.Compacted` when changes after ``since`` can't be told in full."""
    if since > revision:
        raise Compacted(f"revision {since} lies in the future: the store is at revision {revision}")
    if 0 < since < forgotten:
        raise Compacted(
            f"deletions before revision {forgotten} are forgotten; revision {since} was asked for"
        )
