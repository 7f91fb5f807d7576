"""A directory of YAML files as a source: read, watched, never written.

Every ``*.yaml``, ``*.yml`` and ``*.json`` file below the directory counts, except hidden ones (so editors'
swap files, and the ``..data`` directories of mounted ConfigMaps, play no part). The rules for what goes
wrong:

- A file that cannot be read or parsed, or is suddenly empty, keeps the last good version of its objects,
  and a finding says so; other files are applied.
- A file that vanishes is looked for again a moment later, because editors save by delete and rename; if it is
  still gone its objects go. If the whole directory is gone, everything stays.
- A file counts as a whole: one wrong document keeps its neighbours back, as in ``apply``.
- An object in two files comes from the first in the order of paths; the other is a finding.

The system's change notices only say *when* to look; what changed is always found by comparing (time, size,
inode), so a lost notice costs time and nothing else: every few seconds it looks anyway. All objects count as
equally old (``created`` 0), because a file's age isn't the object's; conflicts go by namespace and name.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import watchfiles

from retia.config.codes import Code, finding
from retia.config.parse import Document, Parsed, SourceText, parse
from retia.model.finding import Finding, Level
from retia.model.objects import ObjectRef, Origin
from retia.sources.errors import ReadOnly
from retia.sources.memory import MemoryStore
from retia.sources.store import (
    Changes,
    Delete,
    Listing,
    Put,
    StoredObject,
    Written,
)

SUFFIXES: Final = (".yaml", ".yml", ".json")
MAX_FILE_BYTES: Final = 4 * 1024 * 1024
"""Of one file; arbitrary, a hundred times what people write."""
QUIET_MS: Final = 50
"""How long the files must be quiet before they are read."""
GRACE_S: Final = 0.2
"""After which a vanished file is taken for deleted."""
TICK_S: Final = 0.5
"""How soon after the watch began it looks again, for what changed while it was set up, and how often it looks
whether a missing directory is there."""
LOOK_TICKS: Final = 10
"""After how many quiet ticks it looks without being told."""

_Signature = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class _File:
    signature: _Signature
    good: tuple[Document, ...]
    findings: tuple[Finding, ...]


class DirectorySource:
    """Implements :class:`retia.sources.store.Writable`, but every write is refused.

    Call :meth:`scan` once at start (from a thread: it reads files), then run :meth:`run` as a task.
    """

    def __init__(self, root: Path, default_namespace: str = "default") -> None:
        self.root = root
        self._default_namespace = default_namespace
        self._files: dict[str, _File] = {}
        self._origins: dict[ObjectRef, Origin] = {}
        self._findings: tuple[Finding, ...] = ()
        self._store = MemoryStore()

    def findings(self) -> tuple[Finding, ...]:
        """What is wrong with the files now, in the order of paths."""
        return self._findings

    def origin(self, ref: ObjectRef) -> Origin:
        """Where an object is written."""
        return self._origins.get(ref, Origin())

    def revision(self) -> int:
        return self._store.revision()

    def get(self, ref: ObjectRef) -> StoredObject | None:
        found = self._store.get(ref)
        return None if found is None else _ageless(found)

    def list(self, kind: str = "", namespace: str = "") -> Listing:
        listing = self._store.list(kind, namespace)
        return Listing(listing.revision, tuple(map(_ageless, listing.objects)))

    def changes(self, since: int) -> Changes:
        changes = self._store.changes(since)
        return Changes(changes.revision, tuple(map(_ageless, changes.changed)), changes.deleted)

    def subscribe(self, wake: Callable[[], None]) -> Callable[[], None]:
        return self._store.subscribe(wake)

    def write(self, changes: Iterable[Put | Delete], *, dry_run: bool = False) -> Written:
        refs = ", ".join(str(c.ref) for c in changes) or "nothing"
        raise ReadOnly(
            f"{refs} cannot be written: configuration is read from {self.root}; edit the files there"
        )

    def scan(self) -> bool:
        """Looks at all files and takes what changed; whether anything did (findings included)."""
        return self._take(self._look())

    async def run(self) -> None:
        """Follows the directory until cancelled. A missing directory is waited for."""
        while True:
            if not self.root.is_dir():
                await self._settle()
                await asyncio.sleep(TICK_S)
                continue
            with suppress(FileNotFoundError):  # gone between the look and the watch
                await self._follow()

    async def _follow(self) -> None:
        await self._settle()
        watched = self._identity()
        notices = watchfiles.awatch(
            self.root,
            watch_filter=_is_news,
            step=QUIET_MS,
            rust_timeout=int(TICK_S * 1000),
            yield_on_timeout=True,
            ignore_permission_denied=True,
        )
        quiet = 0
        async with aclosing(notices):
            async for news in notices:
                if news or quiet % LOOK_TICKS == 0:
                    await self._settle()
                quiet = 0 if news else quiet + 1
                if self._identity() != watched:
                    return

    def _identity(self) -> tuple[int, int] | None:
        """Which directory it is: another may be put in its place, which the old watch doesn't tell of."""
        with suppress(OSError):
            status = self.root.stat()
            return status.st_dev, status.st_ino
        return None

    async def _settle(self) -> None:
        """Looks, once more if a file is missing, and takes what it saw."""
        seen = await asyncio.to_thread(self._look)
        if seen is not None and not self._files.keys() <= seen.keys():
            await asyncio.sleep(GRACE_S)
            seen = await asyncio.to_thread(self._look)
        await asyncio.to_thread(self._take, seen)

    def _look(self) -> dict[str, _Signature] | None:
        """The files and their signatures; ``None``: there is no directory."""
        if not self.root.is_dir():
            return None
        seen: dict[str, _Signature] = {}
        for directory, subdirectories, names in os.walk(self.root):
            subdirectories[:] = sorted(d for d in subdirectories if not d.startswith("."))
            for name in filter(_counts, names):
                path = Path(directory, name)
                with suppress(OSError):  # vanished, or a link to nothing
                    status = path.stat()
                    seen[str(path)] = (status.st_mtime_ns, status.st_size, status.st_ino)
        return seen

    def _take(self, seen: Mapping[str, _Signature] | None) -> bool:
        if seen is None:
            return self._publish(self._files, (self._missing(),))
        files = {}
        for path in sorted(seen):
            old = self._files.get(path)
            same = old is not None and old.signature == seen[path]
            files[path] = old if old is not None and same else self._load(path, seen[path], old)
        return self._publish(files, ())

    def _load(self, path: str, signature: _Signature, old: _File | None) -> _File:
        good = old.good if old else ()
        content = self._content(path, signature, bool(good))
        if content.ok:
            return _File(signature, content.documents, content.findings)
        kept = tuple(_kept(f, len(good)) for f in content.findings)
        return _File(signature, good, kept)

    def _content(self, path: str, signature: _Signature, had_objects: bool) -> Parsed:
        try:
            if signature[1] > MAX_FILE_BYTES:
                return _broken(
                    Code.LIMIT, path, f"the file has {signature[1]} bytes; at most {MAX_FILE_BYTES}"
                )
            content = Path(path).read_bytes()
        except OSError as error:
            return _broken(Code.UNREADABLE, path, f"the file cannot be read: {error.strerror or error}")
        if not content.strip() and had_objects:
            return _broken(Code.UNREADABLE, path, "the file is empty; delete it to remove its objects")
        return parse([SourceText(path, content)], self._default_namespace)

    def _publish(self, files: Mapping[str, _File], findings: tuple[Finding, ...]) -> bool:
        merged: dict[ObjectRef, Document] = {}
        for file in files.values():
            findings += file.findings
            for document in file.good:
                first = merged.setdefault(document.ref, document)
                if first is not document:
                    findings += (_duplicate(document, first),)
        before = {o.ref for o in self._store.list().objects}
        changes: list[Put | Delete] = [Put(ref, d.raw) for ref, d in merged.items()]
        changes += [Delete(ref) for ref in before - merged.keys()]
        changed = findings != self._findings
        self._files = dict(files)
        self._findings = findings
        self._origins = {ref: d.origin for ref, d in merged.items()}
        revision = self._store.revision()
        return self._store.write(changes).revision != revision or changed

    def _missing(self) -> Finding:
        kept = len(self._origins)
        return finding(
            Code.UNREADABLE,
            f"the directory does not exist; {kept} objects of its last good state stay in force",
            origin=Origin(str(self.root)),
        )


def _counts(name: str) -> bool:
    return name.endswith(SUFFIXES) and not name.startswith((".", "#"))


def _is_news(_: watchfiles.Change, path: str) -> bool:
    """Whether a notice is a reason to look: directories and the links of mounted ConfigMaps included."""
    name = Path(path).name
    return not name.startswith((".", "#")) or name == "..data"


def _ageless(stored: StoredObject) -> StoredObject:
    return replace(stored, created=0)


def _broken(code: Code, path: str, message: str) -> Parsed:
    return Parsed(findings=(finding(code, message, origin=Origin(path)),))


def _kept(problem: Finding, objects: int) -> Finding:
    """Adds what is in force instead."""
    if problem.level is not Level.ERROR:
        return problem
    what = (
        f"the last good version of its {objects} objects stays in force" if objects else "none of it is used"
    )
    return replace(problem, message=f"{problem.message} (of this file {what})")


def _duplicate(document: Document, first: Document) -> Finding:
    return finding(
        Code.DUPLICATE_OBJECT,
        f"is already defined in {first.origin.path}:{first.origin.line}, which counts",
        ref=document.ref,
        origin=document.origin,
        remedy="remove one of the two",
    )
