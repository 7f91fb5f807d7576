"""Configuration as its users change it: apply, prune, delete, take back, look back.

Whatever changes the store goes through here, one at a time, so that what was checked still holds when it is
written. A document may say by ``metadata.resourceVersion`` which revision it was made from; one with a
``uid`` is a dump of a Kubernetes cluster, whose versions mean nothing here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from retia.analysis.files import placed
from retia.api import schema
from retia.api.backend import ApiError
from retia.config.codes import Code
from retia.config.parse import Document, Parsed, SourceText, parse, parse_document
from retia.config.schema.secret import redacted
from retia.control import rendering
from retia.control.analysing import Analysing
from retia.control.configuration import Configuration
from retia.control.core import Core
from retia.model.objects import ObjectRef
from retia.sources.errors import Conflict, StoreError
from retia.sources.store import (
    Change,
    Delete,
    Entry,
    Note,
    Outcome,
    Put,
    Source,
    Store,
    StoredObject,
    Written,
    same_document,
)

ANALYSE_AFTER_S = 0.05
_FEW = 100
"""So many objects are read one by one; for more the whole store is."""
T = TypeVar("T")


class Editing:
    """Writes to the store on behalf of the API."""

    def __init__(self, core: Core, store: Store, configuration: Configuration, analysing: Analysing) -> None:
        self._core = core
        self._store = store
        self._configuration = configuration
        self._analysing = analysing
        self._one_at_a_time = asyncio.Lock()

    async def apply(self, request: schema.ApplyRequest) -> schema.ApplyResult:
        parsed = await self.parse(request.documents)
        findings = [rendering.finding_of(f) for f in parsed.findings]
        if not parsed.ok:
            return schema.ApplyResult(applied=False, dry_run=request.dry_run, findings=findings)
        refused = await self._analysing.refusing(parsed) if not request.dry_run else ()
        if refused:
            findings += [rendering.finding_of(f) for f in refused]
            return schema.ApplyResult(applied=False, findings=findings)
        async with self._one_at_a_time:
            changes = await self._changes(parsed, request)
            note = self._note(request.reason or "apply")
            written = await self._write(changes, dry_run=request.dry_run, note=note)
        places = {d.ref: d.origin for d in parsed.documents}
        items = _items(written, places) + _skipped(parsed)
        if request.dry_run:
            mine = await self._analysing.as_if(parsed, [c.ref for c in changes if isinstance(c, Delete)])
            findings += [rendering.finding_of(f) for f in mine if f.ref in places]
        else:
            await self._configuration.reached(written.revision)
            # The change goes to the proxies first; the analysis of a large mesh would take the processor.
            await asyncio.sleep(ANALYSE_AFTER_S)
            mine = placed(await self._analysing.now(), parsed.documents)
            findings += [rendering.finding_of(f) for f in mine if f.ref in places]
        return schema.ApplyResult(
            applied=not request.dry_run,
            dry_run=request.dry_run,
            items=items,
            findings=findings,
            revision=written.revision,
        )

    async def parse(self, documents: Sequence[schema.Document]) -> Parsed:
        """Users' documents, parsed beside the loop."""
        return await asyncio.to_thread(parse, [SourceText(d.path, d.text) for d in documents])

    async def delete(self, refs: Iterable[ObjectRef]) -> Written:
        """Removes those that are there."""
        async with self._one_at_a_time:
            written = await self._write([Delete(ref) for ref in refs], note=self._note("delete"))
        await self._configuration.reached(written.revision)
        return written

    async def history(self, ref: ObjectRef | None, revision: int, limit: int) -> schema.HistoryList:
        entries = await reading(lambda: self._store.history(ref, revision, limit))
        if revision and not entries:
            raise ApiError("not_found", f"the history has no revision {revision}; 'retia history' lists it")
        with_documents = ref is not None or bool(revision)
        return schema.HistoryList(items=[_entry(e, with_documents) for e in entries])

    async def undo(self, request: schema.UndoRequest) -> schema.ApplyResult:
        async with self._one_at_a_time:
            entries = await reading(lambda: self._store.history(None, request.revision, 1))
            if not entries:
                which = f"revision {request.revision}" if request.revision else "a write to take back"
                raise ApiError("not_found", f"the history has no {which}; 'retia history' lists it")
            entry = entries[0]
            changes = [await self._reverse(change, entry.revision) for change in entry.changes]
            reason = f"undo of revision {entry.revision}" + (f": {request.reason}" if request.reason else "")
            written = await self._write(changes, dry_run=request.dry_run, note=self._note(reason))
        if not request.dry_run:
            await self._configuration.reached(written.revision)
        return schema.ApplyResult(
            applied=not request.dry_run,
            dry_run=request.dry_run,
            items=_items(written, {}),
            revision=written.revision,
        )

    # -- parts -------------------------------------------------------------------------------------------

    async def _changes(self, parsed: Parsed, request: schema.ApplyRequest) -> list[Put | Delete]:
        stored = await reading(lambda: self._stored(parsed, everything=request.prune))
        for document in parsed.documents:
            _check_owner(stored.get(document.ref), request.owner)
        changes: list[Put | Delete] = [
            _put(document, stored.get(document.ref), request.owner) for document in parsed.documents
        ]
        if request.prune:
            kept = {document.ref for document in parsed.documents}
            owned = (o for o in stored.values() if o.source.owner == request.owner)
            changes += [Delete(o.ref, o.revision) for o in owned if o.ref not in kept]
        return changes

    def _stored(self, parsed: Parsed, *, everything: bool) -> dict[ObjectRef, StoredObject]:
        """What is stored now of the documents' objects, or all there is."""
        if everything or len(parsed.documents) > _FEW:
            return {each.ref: each for each in self._store.list().objects}
        found = (self._store.get(document.ref) for document in parsed.documents)
        return {each.ref: each for each in found if each is not None}

    async def _reverse(self, change: Change, revision: int) -> Put | Delete:
        """What makes an object what it was before; it must be what that write made of it."""
        ref = change.ref
        stored = await reading(lambda: self._store.get(ref))
        now = stored.document if stored else None
        if not _same(now, change.after):
            raise ApiError(
                "conflict",
                f"{ref} has changed since revision {revision}; take the later writes back first "
                f"('retia history {ref.kind} {ref.name}' lists them)",
            )
        expected = stored.revision if stored else 0
        if change.before is None:
            return Delete(ref, expected)
        parsed = parse_document(change.before, ref.namespace)
        if not parsed.ok:
            findings = [rendering.finding_of(f) for f in parsed.findings]
            raise ApiError("invalid", f"{ref} as it was is not valid in this version", findings)
        return Put(ref, change.before, expected, change.source)

    def _note(self, reason: str) -> Note:
        return Note(int(self._core.clock.now()), reason)

    async def _write(
        self, changes: Sequence[Put | Delete], *, dry_run: bool = False, note: Note | None = None
    ) -> Written:
        try:
            return await asyncio.to_thread(lambda: self._store.write(changes, dry_run=dry_run, note=note))
        except Conflict as error:
            raise ApiError("conflict", _conflict(error)) from error
        except StoreError as error:
            raise ApiError("unavailable", f"nothing was stored: {error}") from error


async def reading(action: Callable[[], T]) -> T:
    """A look into the store, beside the loop."""
    try:
        return await asyncio.to_thread(action)
    except StoreError as error:
        raise ApiError("unavailable", f"the store can't be read: {error}") from error


def _put(document: Document, stored: StoredObject | None, owner: str) -> Put:
    raw, expected = _versioned({key: value for key, value in document.raw.items() if key != "status"})
    kept = stored.source.owner if stored else ""
    source = Source(document.origin.path, document.origin.line, owner or kept)
    return Put(document.ref, raw, expected, source)


def _versioned(raw: Mapping[str, Any]) -> tuple[Mapping[str, Any], int | None]:
    """The document without its ``resourceVersion``, and the revision that it asks for.

    One with a ``uid`` comes from a Kubernetes cluster: its version counts that cluster's changes, not ours.
    """
    metadata = raw.get("metadata") or {}
    version = metadata.get("resourceVersion")
    if version is None:
        return raw, None
    bare = {**raw, "metadata": {key: value for key, value in metadata.items() if key != "resourceVersion"}}
    if metadata.get("uid"):
        return bare, None
    text = str(version)
    if not text.isdigit():
        raise ApiError("invalid", f"metadata.resourceVersion is {version!r}; it must be a whole number")
    return bare, int(text)


def _check_owner(stored: StoredObject | None, owner: str) -> None:
    if stored is None or not owner or stored.source.owner in ("", owner):
        return
    raise ApiError(
        "conflict",
        f"{stored.ref} belongs to the owner {stored.source.owner!r}, not to {owner!r}; apply it as that "
        "owner, or delete it first",
    )


def _same(one: Mapping[str, Any] | None, other: Mapping[str, Any] | None) -> bool:
    if one is None or other is None:
        return one is other
    return same_document(one, other)


def _conflict(error: Conflict) -> str:
    if not error.actual:
        return (
            f"{error.what} does not exist, but the document was made from revision {error.expected} of it; "
            "leave metadata.resourceVersion out to create it. Nothing was stored"
        )
    return (
        f"{error.what} is at revision {error.actual}, but the change was made from revision "
        f"{error.expected}: somebody has changed it since. Get it again and repeat, or leave "
        "metadata.resourceVersion out to overwrite it. Nothing was stored"
    )


def _items(written: Written, places: Mapping[ObjectRef, Any]) -> list[schema.ApplyItem]:
    items = []
    for result in written.results:
        place = places.get(result.ref)
        items.append(
            schema.ApplyItem(
                object=str(result.ref),
                action=result.outcome.value,
                path=place.path if place else "",
                line=place.line if place else 0,
            )
        )
    return items


def _skipped(parsed: Parsed) -> list[schema.ApplyItem]:
    return [
        schema.ApplyItem(object=str(f.ref or ""), action="skipped", path=f.origin.path, line=f.origin.line)
        for f in parsed.findings
        if f.code == Code.SKIPPED_KIND
    ]


def _entry(entry: Entry, with_documents: bool) -> schema.HistoryEntry:
    return schema.HistoryEntry(
        revision=entry.revision,
        time=entry.note.time,
        reason=entry.note.reason,
        changes=[
            schema.HistoryChange(
                object=str(change.ref),
                action=_ACTIONS[change.outcome],
                before=_shown(change.before) if with_documents else None,
                after=_shown(change.after) if with_documents else None,
            )
            for change in entry.changes
        ],
    )


def _shown(document: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if document is None else redacted(document)


_ACTIONS: Mapping[Outcome, Any] = {
    Outcome.CREATED: "created",
    Outcome.CONFIGURED: "configured",
    Outcome.DELETED: "deleted",
}
