"""A directory of YAML files as a source: read, watched, never written.

Every ``*.yaml``, ``*.yml`` and ``*.json`` file below the directory counts, except hidden ones (so editors'
swap files, and the ``..data`` directories of mounted ConfigMaps, play no part). The rules for what goes
wrong:

- A file that cannot be read or parsed, or is suddenly empty, keeps the last good version of its objects,
  and a finding says so; other files are applied.
- A file that vanishes is looked for again a moment later, because editors save by delete and rename; if it is
  still gone its objects go. If the whole directory is gone, everything stays.
- An object in two files comes from the first in the order of paths; the other is a finding.

The system's change notices only say *when* to look; what changed is always found by comparing (time, size,
inode), so a lost notice costs time and nothing else: every few seconds it looks anyway. All objects count as
equally old (``created`` 0), because a file's age isn't the object's; conflicts go by namespace and name.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import watchfiles
import yaml

from retia.config.codes import Code, finding, has_errors
from retia.model.finding import Finding
from retia.model.ids import Namespace
from retia.model.objects import ObjectRef, Origin
from retia.sources.errors import ReadOnly
from retia.sources.memory import MemoryStore
from retia.sources.store import (
    Changes,
    Delete,
    Document,
    Listing,
    Put,
    StoredObject,
    Written,
    encode,
)

SUFFIXES: Final = (".yaml", ".yml", ".json")
MAX_FILE_BYTES: Final = 4 * 1024 * 1024
"""Of one file; arbitrary, a hundred times what people write."""
MAX_NODES: Final = 200_000
"""Values in one file with aliases written out; arbitrary, against documents that explode."""
QUIET_MS: Final = 50
"""How long the files must be quiet before they are read."""
GRACE_S: Final = 0.2
"""After which a vanished file is taken for deleted."""
LOOK_S: Final = 5.0
"""How often it looks without being told."""

_Signature = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class FileDocument:
    """One document of a file and the line at which it begins."""

    ref: ObjectRef
    document: Document
    line: int = 0


@dataclass(frozen=True, slots=True)
class FileContent:
    """What a file says. With a finding of level error the documents don't count."""

    documents: tuple[FileDocument, ...] = ()
    findings: tuple[Finding, ...] = ()


Reader = Callable[[str, str], FileContent]
"""Turns a file's text and its path (for the findings) into documents. It must not raise."""


@dataclass(frozen=True, slots=True)
class _File:
    signature: _Signature
    good: tuple[FileDocument, ...]
    findings: tuple[Finding, ...]


class DirectorySource:
    """Implements :class:`retia.sources.store.Writable`, but every write is refused.

    Call :meth:`scan` once at start (from a thread: it reads files), then run :meth:`run` as a task.
    """

    def __init__(self, root: Path, read: Reader | None = None) -> None:
        self.root = root
        self._read = read or read_yaml
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
                await asyncio.sleep(min(LOOK_S, 1.0))
                continue
            with suppress(FileNotFoundError):  # gone between the look and the watch
                await self._follow()

    async def _follow(self) -> None:
        await self._settle()
        notices = watchfiles.awatch(
            self.root,
            watch_filter=lambda _, path: _counts(Path(path).name) or Path(path).name == "..data",
            step=QUIET_MS,
            rust_timeout=int(LOOK_S * 1000),
            yield_on_timeout=True,
            ignore_permission_denied=True,
        )
        async for _ in notices:
            await self._settle()
            if not self.root.is_dir():
                return

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
        if not has_errors(content.findings):
            return _File(signature, content.documents, content.findings)
        kept = tuple(_kept(f, len(good)) for f in content.findings)
        return _File(signature, good, kept)

    def _content(self, path: str, signature: _Signature, had_objects: bool) -> FileContent:
        try:
            if signature[1] > MAX_FILE_BYTES:
                return _broken(
                    Code.LIMIT, path, f"the file has {signature[1]} bytes; at most {MAX_FILE_BYTES}"
                )
            text = Path(path).read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            return _broken(Code.UNREADABLE, path, f"the file is not UTF-8 text (byte {error.start})")
        except OSError as error:
            return _broken(Code.UNREADABLE, path, f"the file cannot be read: {error.strerror or error}")
        if not text.strip() and had_objects:
            return _broken(Code.UNREADABLE, path, "the file is empty; delete it to remove its objects")
        return self._read(text, path)

    def _publish(self, files: Mapping[str, _File], findings: tuple[Finding, ...]) -> bool:
        merged: dict[ObjectRef, tuple[str, FileDocument]] = {}
        for path, file in files.items():
            findings += file.findings
            for document in file.good:
                first = merged.setdefault(document.ref, (path, document))
                if first[1] is not document:
                    findings += (_duplicate(document, path, *first),)
        before = {o.ref for o in self._store.list().objects}
        changes: list[Put | Delete] = [Put(ref, d.document) for ref, (_, d) in merged.items()]
        changes += [Delete(ref) for ref in before - merged.keys()]
        changed = findings != self._findings
        self._files = dict(files)
        self._findings = findings
        self._origins = {ref: Origin(path, d.line) for ref, (path, d) in merged.items()}
        revision = self._store.revision()
        return self._store.write(changes).revision != revision or changed

    def _missing(self) -> Finding:
        kept = len(self._origins)
        return finding(
            Code.UNREADABLE,
            f"the directory does not exist; {kept} objects of its last good state stay in force",
            origin=Origin(str(self.root)),
        )


def read_yaml(text: str, path: str) -> FileContent:
    """Reads kind, namespace (default ``default``) and name of each document and checks nothing else.

    A ``List`` counts as its items. For use with stores that are checked elsewhere, and in tests.
    """
    documents: list[FileDocument] = []
    try:
        for node in yaml.compose_all(text, Loader=_Loader):
            if node is None:
                continue
            _bound(node)
            value = _construct(node)
            line = node.start_mark.line + 1
            for item in _items(value):
                documents.append(FileDocument(_ref(item), item, line))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 0
        problem = str(getattr(error, "problem", "") or error)
        return _broken(Code.SYNTAX, path, f"not valid YAML: {problem}", line)
    except (ValueError, TypeError, RecursionError) as error:
        return _broken(Code.NOT_AN_OBJECT, path, f"a document is no object: {error}")
    return FileContent(tuple(documents))


class _Loader(yaml.CSafeLoader if hasattr(yaml, "CSafeLoader") else yaml.SafeLoader):  # type: ignore[misc]
    """Knows no dates: they would be no JSON."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [(tag, regexp) for tag, regexp in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def _construct(node: yaml.Node) -> Any:
    constructor = yaml.constructor.SafeConstructor()
    return constructor.construct_document(node)


def _bound(root: yaml.Node) -> None:
    """Counts the values with aliases written out; raises ``ValueError`` beyond the limit."""
    left, stack = MAX_NODES, [root]
    while stack:
        node = stack.pop()
        left -= 1
        if left < 0:
            raise ValueError(f"it has more than {MAX_NODES} values, aliases written out")
        if isinstance(node, yaml.SequenceNode):
            stack.extend(node.value)
        elif isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                stack += (key, value)


def _items(value: Any) -> Iterable[Any]:
    if isinstance(value, dict) and value.get("kind") == "List" and isinstance(value.get("items"), list):
        return list(value["items"])
    return [] if value is None else [value]


def _ref(document: Any) -> ObjectRef:
    if not isinstance(document, dict):
        raise ValueError(f"a mapping is needed, not {type(document).__name__}")
    metadata = document.get("metadata")
    if not isinstance(metadata, dict):
        raise ValueError("metadata is needed")
    kind, name = document.get("kind"), metadata.get("name")
    if not (isinstance(kind, str) and kind and isinstance(name, str) and name):
        raise ValueError("kind and metadata.name are needed")
    encode(document)
    return ObjectRef(kind, Namespace(str(metadata.get("namespace") or "default")), name)


def _counts(name: str) -> bool:
    return name.endswith(SUFFIXES) and not name.startswith((".", "#"))


def _ageless(stored: StoredObject) -> StoredObject:
    return replace(stored, created=0)


def _broken(code: Code, path: str, message: str, line: int = 0) -> FileContent:
    return FileContent(findings=(finding(code, message, origin=Origin(path, line)),))


def _kept(problem: Finding, objects: int) -> Finding:
    """Adds what is in force instead."""
    what = (
        f"the last good version of its {objects} objects stays in force"
        if objects
        else "nothing of it is used"
    )
    return replace(problem, message=f"{problem.message}; {what}")


def _duplicate(document: FileDocument, path: str, first_path: str, first: FileDocument) -> Finding:
    return finding(
        Code.DUPLICATE_OBJECT,
        f"this object is already in {first_path}:{first.line}, which counts",
        ref=document.ref,
        origin=Origin(path, document.line),
        remedy="remove one of the two",
    )
