"""Configuration objects from the store, and from a watched directory, into the facts.

Both are followed from a revision. An object that is in both comes from the store: what somebody applied is
nearer than a file. What the store holds was valid when it was applied; if a newer version no longer takes it,
the object is left out and a finding says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import replace

import structlog

from retia.config.parse import parse_document
from retia.model.finding import Finding
from retia.model.objects import ConfigObject, ObjectRef
from retia.policy.facts import FactBase
from retia.sources.directory import DirectorySource
from retia.sources.errors import Compacted, StoreError
from retia.sources.store import Changes, Objects, Store, StoredObject, watch

RETRY_S = 2.0
INLINE = 20
"""So many documents are parsed in the loop; more go to a thread. One takes about half a millisecond."""

_log = structlog.get_logger("retia.control.configuration")


class Configuration:
    """``touch`` is called when facts were put."""

    def __init__(
        self,
        store: Store,
        directory: DirectorySource | None,
        facts: FactBase,
        touch: Callable[[], None],
    ) -> None:
        self.directory = directory
        self._store = store
        self._facts = facts
        self._touch = touch
        self._objects: dict[str, dict[ObjectRef, ConfigObject]] = {"store": {}, "directory": {}}
        self._findings: dict[ObjectRef, tuple[Finding, ...]] = {}
        self._revisions: dict[str, int] = {}
        self._moved = asyncio.Condition()

    @property
    def revision(self) -> int:
        """The store's revision up to which everything is in the facts."""
        return self._revisions.get("store", 0)

    def findings(self) -> list[Finding]:
        """What is wrong with stored documents and watched files."""
        found = [f for each in self._findings.values() for f in each]
        if self.directory is not None:
            found += self.directory.findings()
        return found

    async def load(self) -> None:
        """Take everything there is. Raises ``StoreError``."""
        if self.directory is not None:
            await asyncio.to_thread(self.directory.scan)
        for source, objects in self._sources():
            await self._reload(source, objects)

    async def run(self) -> None:
        """Follow all sources until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for source, objects in self._sources():
                tasks.create_task(self._follow(source, objects), name=f"configuration {source}")
            if self.directory is not None:
                tasks.create_task(self.directory.run(), name="configuration files")

    async def reached(self, revision: int, timeout_s: float = 5.0) -> bool:
        """Whether, within ``timeout_s``, the store's ``revision`` is in the facts."""
        try:
            async with asyncio.timeout(timeout_s), self._moved:
                await self._moved.wait_for(lambda: self.revision >= revision)
        except TimeoutError:
            return False
        return True

    def _sources(self) -> list[tuple[str, Objects]]:
        sources: list[tuple[str, Objects]] = [("store", self._store)]
        if self.directory is not None:
            sources.append(("directory", self.directory))
        return sources

    async def _follow(self, source: str, objects: Objects) -> None:
        while True:
            try:
                async for changes in watch(objects, self._revisions[source]):
                    await self._take(source, changes)
            except Compacted:
                await self._reload(source, objects)
            except StoreError as error:
                _log.error("configuration can't be read", source=source, reason=str(error))
                await asyncio.sleep(RETRY_S)

    async def _reload(self, source: str, objects: Objects) -> None:
        listing = await asyncio.to_thread(objects.list)
        present = {o.ref for o in listing.objects}
        gone = tuple(ref for ref in self._objects[source] if ref not in present)
        await self._take(source, Changes(listing.revision, listing.objects, gone))

    async def _take(self, source: str, changes: Changes) -> None:
        if len(changes.changed) <= INLINE:
            parsed = _parse(changes.changed)
        else:
            parsed = await asyncio.to_thread(_parse, changes.changed)
        mine = self._objects[source]
        for ref in changes.deleted:
            mine.pop(ref, None)
            self._findings.pop(ref, None)
        for ref, obj, findings in parsed:
            self._findings.pop(ref, None)
            if findings:
                self._findings[ref] = findings
            if obj is None:
                mine.pop(ref, None)
                _log.error("a stored object is left out", object=str(ref), reason=str(findings[:1]))
            else:
                mine[ref] = obj
        self._put([*changes.deleted, *(ref for ref, _, _ in parsed)])
        self._revisions[source] = changes.revision
        async with self._moved:
            self._moved.notify_all()

    def _put(self, refs: Iterable[ObjectRef]) -> None:
        objects: list[ConfigObject] = []
        removed: list[ObjectRef] = []
        for ref in refs:
            obj = self._objects["store"].get(ref) or self._objects["directory"].get(ref)
            if obj is None:
                removed.append(ref)
            else:
                objects.append(obj)
        self._facts.put_objects(objects, removed)
        self._touch()


def _parse(
    stored: Iterable[StoredObject],
) -> list[tuple[ObjectRef, ConfigObject | None, tuple[Finding, ...]]]:
    found: list[tuple[ObjectRef, ConfigObject | None, tuple[Finding, ...]]] = []
    for each in stored:
        parsed = parse_document(each.document, each.ref.namespace)
        obj = next((replace(o, created=each.created) for o in parsed.objects if o.ref == each.ref), None)
        found.append((each.ref, obj, parsed.findings))
    return found
