"""What every store does, whichever it is: the conformance suite.

A store under test is given by a *rig*: how to write to it from outside, and how to open it anew. A directory
of files takes part in everything that doesn't write through the store itself.
"""

from __future__ import annotations

import asyncio
import json
import threading
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from retia.model.ids import Namespace
from retia.model.objects import ObjectRef
from retia.sources.directory import DirectorySource
from retia.sources.errors import Compacted, Conflict, ReadOnly
from retia.sources.memory import MemoryStore
from retia.sources.sqlite import SqliteStore
from retia.sources.store import (
    ABSENT,
    Changes,
    Delete,
    Note,
    Objects,
    Outcome,
    Put,
    PutRecord,
    Source,
    Store,
    same_document,
    watch,
)


def ref(name: str, namespace: str = "default", kind: str = "Service") -> ObjectRef:
    return ObjectRef(kind, Namespace(namespace), name)


def document(of: ObjectRef, **values: Any) -> dict[str, Any]:
    """A valid document (a directory takes no other) that holds ``values``."""
    service, rule = {"ports": [{"port": 80}]}, {"host": "reviews"}
    return {
        "apiVersion": "v1" if of.kind == "Service" else "networking.istio.io/v1",
        "kind": of.kind,
        "metadata": {
            "namespace": of.namespace,
            "name": of.name,
            "annotations": {"values": json.dumps(values)},
        },
        "spec": service if of.kind == "Service" else rule,
    }


A, B, C = ref("a"), ref("b"), ref("c", "shop", "DestinationRule")


class Rig(ABC):
    """One kind of store."""

    store: Objects

    @abstractmethod
    def put(self, of: ObjectRef, **spec: Any) -> None: ...

    @abstractmethod
    def delete(self, of: ObjectRef) -> None: ...

    def close(self) -> None:
        """Most have nothing to give back."""
        return


class StoreRig(Rig):
    store: Store

    def put(self, of: ObjectRef, **spec: Any) -> None:
        self.store.write([Put(of, document(of, **spec))])

    def delete(self, of: ObjectRef) -> None:
        self.store.write([Delete(of)])

    def close(self) -> None:
        self.store.close()


class MemoryRig(StoreRig):
    def __init__(self, _: Path, tombstones: int = 10_000) -> None:
        self.store = MemoryStore(tombstones)


class SqliteRig(StoreRig):
    def __init__(self, path: Path, tombstones: int = 10_000) -> None:
        self.store = SqliteStore(path / "store.sqlite", tombstones=tombstones)


class DirectoryRig(Rig):
    def __init__(self, path: Path) -> None:
        self.path = path
        self.store: DirectorySource = DirectorySource(path)

    def put(self, of: ObjectRef, **spec: Any) -> None:
        file = self._file(of)
        file.with_suffix(".new").write_text(json.dumps(document(of, **spec)))
        file.with_suffix(".new").rename(file)
        self.store.scan()

    def delete(self, of: ObjectRef) -> None:
        self._file(of).unlink(missing_ok=True)
        self.store.scan()

    def _file(self, of: ObjectRef) -> Path:
        return self.path / f"{of.kind}-{of.namespace}-{of.name}.yaml"


READABLE = [MemoryRig, SqliteRig, DirectoryRig]
WRITABLE = [MemoryRig, SqliteRig]


@pytest.fixture(params=READABLE, ids=lambda r: r.__name__)
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    made = request.param(tmp_path)
    yield made
    made.close()


@pytest.fixture(params=WRITABLE, ids=lambda r: r.__name__)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    made = request.param(tmp_path)
    yield made.store
    made.close()


class TestReading:
    def test_an_empty_store(self, rig: Rig) -> None:
        assert rig.store.revision() == 0
        assert rig.store.get(A) is None
        assert rig.store.list().objects == ()
        assert not rig.store.changes(0)

    def test_an_object_is_found_by_its_name(self, rig: Rig) -> None:
        rig.put(A, x=1)
        found = rig.store.get(A)
        assert found is not None
        assert found.ref == A
        assert found.document == document(A, x=1)
        assert found.revision == rig.store.revision() == 1
        assert rig.store.get(ref("a", "shop")) is None

    def test_lists_are_sorted_and_filtered(self, rig: Rig) -> None:
        for each in (B, C, A):
            rig.put(each)
        assert [o.ref for o in rig.store.list().objects] == [C, A, B]
        assert [o.ref for o in rig.store.list("Service").objects] == [A, B]
        assert [o.ref for o in rig.store.list(namespace="shop").objects] == [C]
        assert rig.store.list("Service", "shop").objects == ()
        assert rig.store.list().revision == 3

    def test_every_object_has_the_revision_of_its_own_change(self, rig: Rig) -> None:
        rig.put(A, x=1)
        rig.put(B)
        rig.put(A, x=2)
        assert [o.revision for o in rig.store.list().objects] == [3, 2]

    def test_what_stays_the_same_changes_no_revision(self, rig: Rig) -> None:
        rig.put(A, x=1)
        rig.put(A, x=1)
        assert rig.store.revision() == 1
        rig.delete(B)
        assert rig.store.revision() == 1


class TestWatching:
    def test_changes_since_a_revision(self, rig: Rig) -> None:
        rig.put(A, x=1)
        rig.put(B)
        rig.put(A, x=2)
        changes = rig.store.changes(1)
        assert [o.ref for o in changes.changed] == [A, B]
        assert [o.ref for o in rig.store.changes(2).changed] == [A]
        assert not rig.store.changes(3)
        assert rig.store.changes(3).revision == 3

    def test_deletions_are_told(self, rig: Rig) -> None:
        rig.put(A)
        rig.put(B)
        rig.delete(A)
        assert rig.store.changes(2) == Changes(3, (), (A,))
        assert [o.ref for o in rig.store.changes(0).changed] == [B]
        assert rig.store.changes(0).deleted == ()

    def test_what_comes_back_is_not_told_as_deleted(self, rig: Rig) -> None:
        rig.put(A, x=1)
        rig.put(B)
        rig.delete(A)
        rig.put(A, x=2)
        changes = rig.store.changes(2)
        assert [o.ref for o in changes.changed] == [A]
        assert changes.deleted == ()

    def test_a_revision_from_the_future_means_that_the_store_was_replaced(self, rig: Rig) -> None:
        rig.put(A)
        with pytest.raises(Compacted, match="lies in the future"):
            rig.store.changes(2)

    def test_subscribers_are_woken_until_they_leave(self, rig: Rig) -> None:
        calls: list[int] = []
        leave = rig.store.subscribe(lambda: calls.append(rig.store.revision()))
        rig.put(A)
        rig.put(B)
        leave()
        leave()
        rig.delete(A)
        assert calls == [1, 2]

    async def test_a_watch_yields_what_is_there_and_then_what_changes(self, rig: Rig) -> None:
        rig.put(A)
        async with aclosing(_watched(rig.store, 0)) as seen:
            assert [o.ref for o in (await anext(seen)).changed] == [A]
            await asyncio.to_thread(rig.put, B)
            assert [o.ref for o in (await anext(seen)).changed] == [B]
            await asyncio.to_thread(rig.delete, A)
            assert (await anext(seen)).deleted == (A,)

    async def test_what_happens_while_a_watcher_works_is_merged(self, rig: Rig) -> None:
        async with aclosing(_watched(rig.store, 0)) as seen:
            rig.put(A, x=0)
            await anext(seen)
            for x in (1, 2, 3):
                rig.put(A, x=x)
            (only,) = (await anext(seen)).changed
            assert only.document == document(A, x=3)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await anext(seen)


async def _watched(store: Objects, since: int) -> AsyncIterator[Changes]:
    async with asyncio.timeout(10):
        async for changes in watch(store, since):
            yield changes


class TestWriting:
    def test_outcomes_are_told_in_order(self, store: Store) -> None:
        store.write([Put(A, document(A)), Put(B, document(B))])
        written = store.write(
            [Put(B, document(B, x=1)), Put(A, document(A)), Put(C, document(C)), Delete(A), Delete(ref("no"))]
        )
        assert [(r.ref.name, r.outcome.value) for r in written.results] == [
            ("b", "configured"),
            ("a", "unchanged"),
            ("c", "created"),
            ("a", "deleted"),
            ("no", "unchanged"),
        ]
        assert written.revision == 2
        assert [r.revision for r in written.results] == [2, 1, 2, 0, 0]

    @pytest.mark.parametrize("spec", [{"x": 1}, {"x": True}, {"x": 1.5}, {"x": "ü\n€"}, {"x": [None, {}]}])
    def test_documents_come_back_as_they_were(self, store: Store, spec: dict[str, Any]) -> None:
        store.write([Put(A, {"x": 0})])
        store.write([Put(A, {"x": 1.0})])
        store.write([Put(A, spec)])
        found = store.get(A)
        assert found is not None
        assert same_document(found.document, spec)
        assert found.revision == 3

    def test_age_is_kept_until_an_object_is_deleted(self, store: Store) -> None:
        store.write([Put(A, document(A))])
        store.write([Put(B, document(B)), Put(C, document(C))])
        store.write([Put(A, document(A, x=1))])
        assert [(o.ref.name, o.created) for o in store.list().objects] == [("c", 2), ("a", 1), ("b", 2)]
        store.write([Delete(A), Put(A, document(A))])
        found = store.get(A)
        assert found is not None
        assert found.created == 4

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (
                Put(A, {}, ABSENT),
                "Service/default/a: it is at revision 1, but .* for it does not exist",
            ),
            (Put(A, {}, 7), "it is at revision 1, but the change was made for it is at revision 7"),
            (Put(B, {}, 1), "Service/default/b: it does not exist"),
            (Delete(A, 2), "it is at revision 1"),
            (Delete(B, 1), "it does not exist"),
        ],
        ids=["create what is", "replace another", "replace nothing", "delete another", "delete nothing"],
    )
    def test_a_conflict_spoils_the_whole_batch(self, store: Store, change: Put | Delete, words: str) -> None:
        store.write([Put(A, document(A))])
        with pytest.raises(Conflict, match=words):
            store.write([Put(C, document(C)), change])
        assert store.revision() == 1
        assert store.get(C) is None

    def test_expected_revisions_that_are_right_pass(self, store: Store) -> None:
        store.write([Put(A, document(A), ABSENT)])
        store.write([Put(A, document(A, x=1), 1)])
        store.write([Delete(A, 2)])
        assert store.get(A) is None

    def test_a_dry_run_tells_all_and_does_nothing(self, store: Store) -> None:
        woken: list[None] = []
        store.subscribe(lambda: woken.append(None))
        results = store.write([Put(A, document(A))], dry_run=True).results
        assert results[0].outcome is Outcome.CREATED
        with pytest.raises(Conflict):
            store.write([Delete(A, 1)], dry_run=True)
        assert store.revision() == 0
        assert store.get(A) is None
        assert not woken

    def test_an_empty_batch_is_nothing(self, store: Store) -> None:
        assert store.write([]).revision == 0

    @pytest.mark.parametrize("bad", [{"x": float("nan")}, {"x": {1, 2}}, {"x": b""}])
    def test_what_is_no_json_is_refused_whole(self, store: Store, bad: dict[str, Any]) -> None:
        store.write([Put(A, document(A))])
        with pytest.raises((ValueError, TypeError)):
            store.write([Put(B, document(B)), Put(A, bad)])
        assert store.revision() == 1
        assert store.get(B) is None

    def test_the_writers_later_changes_of_its_document_play_no_part(self, store: Store) -> None:
        mine = document(A, x=1)
        store.write([Put(A, mine)])
        mine["spec"]["ports"] = []
        found = store.get(A)
        assert found is not None
        assert found.document == document(A, x=1)

    def test_threads_write_one_after_another(self, store: Store) -> None:
        def work(number: int) -> int:
            each = ref(f"o{number}")
            return store.write([Put(each, document(each))]).revision

        with ThreadPoolExecutor(8) as pool:
            revisions = list(pool.map(work, range(40)))
        assert sorted(revisions) == list(range(1, 41))
        assert len(store.list().objects) == 40

    @pytest.mark.parametrize("kind", WRITABLE)
    def test_deletions_are_remembered_up_to_a_limit(self, kind: Any, tmp_path: Path) -> None:
        rig = kind(tmp_path, tombstones=2)
        for name in "abc":
            rig.put(ref(name))
        for name in "abc":
            rig.delete(ref(name))
        assert [r.name for r in rig.store.changes(4).deleted] == ["b", "c"]
        with pytest.raises(Compacted, match="deletions before revision 4 are forgotten"):
            rig.store.changes(3)
        assert rig.store.changes(0) == Changes(6)
        rig.close()

    def test_a_directory_is_not_written_to(self, tmp_path: Path) -> None:
        with pytest.raises(ReadOnly, match="edit the files there"):
            DirectorySource(tmp_path).write([Put(A, document(A))])


class TestRecords:
    def test_they_live_in_spaces(self, store: Store) -> None:
        store.write_records([PutRecord("s", "b", b"1"), PutRecord("s", "a", b"2"), PutRecord("t", "a", b"3")])
        assert [(r.key, r.value) for r in store.records("s")] == [("a", b"2"), ("b", b"1")]
        assert store.records("none") == ()
        found = store.record("t", "a")
        assert found is not None
        assert found.value == b"3"
        assert store.record("t", "b") is None

    def test_they_are_replaced_and_removed(self, store: Store) -> None:
        first = store.write_records([PutRecord("s", "a", b"1")])
        second = store.write_records([PutRecord("s", "a", b"\0\xff", first)])
        found = store.record("s", "a")
        assert found is not None
        assert (found.value, found.revision) == (b"\0\xff", second)
        store.write_records([PutRecord("s", "a", None, second), PutRecord("s", "never", None)])
        assert store.records("s") == ()

    @pytest.mark.parametrize("expected", [ABSENT, 99])
    def test_a_conflict_spoils_the_whole_batch(self, store: Store, expected: int) -> None:
        store.write_records([PutRecord("s", "a", b"1")])
        with pytest.raises(Conflict, match="s/a: it is at revision 1"):
            store.write_records([PutRecord("s", "b", b"2"), PutRecord("s", "a", b"3", expected)])
        assert [r.value for r in store.records("s")] == [b"1"]

    def test_they_do_not_touch_configuration(self, store: Store) -> None:
        woken: list[None] = []
        store.subscribe(lambda: woken.append(None))
        store.write_records([PutRecord("s", "a", b"1")])
        assert store.revision() == 0
        assert not woken

    def test_of_many_writers_one_wins(self, store: Store) -> None:
        ready = threading.Barrier(4)

        def work(number: int) -> bool:
            ready.wait(5)
            try:
                store.write_records([PutRecord("s", "a", str(number).encode(), ABSENT)])
            except Conflict:
                return False
            return True

        with ThreadPoolExecutor(4) as pool:
            assert sum(pool.map(work, range(4))) == 1


NAMES = st.sampled_from("abc")
STEPS = st.lists(
    st.lists(
        st.one_of(
            st.builds(lambda n, x: Put(ref(n), document(ref(n), x=x)), NAMES, st.integers(0, 2)),
            st.builds(lambda n: Delete(ref(n)), NAMES),
        ),
        max_size=4,
    ),
    max_size=8,
)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS, known=st.integers(0, 8))
def test_all_stores_agree_and_changes_lead_from_any_revision_to_the_last(
    steps: list[list[Put | Delete]], known: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rigs: list[StoreRig] = [MemoryRig(Path()), SqliteRig(tmp_path_factory.mktemp("store"))]
    views = [{0: {}} for _ in rigs]
    for batch in steps:
        results = [rig.store.write(batch) for rig in rigs]
        assert results[0] == results[1]
        for rig, view in zip(rigs, views, strict=True):
            view[rig.store.revision()] = {o.ref: o for o in rig.store.list().objects}
    assert rigs[0].store.list() == rigs[1].store.list()
    for rig, view in zip(rigs, views, strict=True):
        since = min(known, rig.store.revision())
        state = dict(view[since])
        changes = rig.store.changes(since)
        state.update({o.ref: o for o in changes.changed})
        for gone in changes.deleted:
            state.pop(gone, None)
        assert state == view[rig.store.revision()]
        rig.close()


class TestHistory:
    """What was written, with what it replaced."""

    def test_every_noted_write_is_remembered_newest_first(self, store: Store) -> None:
        a, b = ref("a"), ref("b")
        store.write([Put(a, document(a, x=1))], note=Note(1, "first"))
        store.write([Put(b, document(b, x=1))])
        store.write([Put(a, document(a, x=2)), Delete(b)], note=Note(3))
        newest, oldest = store.history()
        assert [(c.ref, c.outcome) for c in newest.changes] == [
            (a, Outcome.CONFIGURED),
            (b, Outcome.DELETED),
        ]
        assert newest.changes[0].before == document(a, x=1)
        assert newest.changes[0].after == document(a, x=2)
        assert (oldest.revision, oldest.note) == (1, Note(1, "first"))
        assert oldest.changes[0].outcome is Outcome.CREATED

    def test_where_the_former_came_from_is_remembered(self, store: Store) -> None:
        a = ref("a")
        store.write([Put(a, document(a), source=Source("a.yaml", 3, "me"))], note=Note(1))
        store.write([Delete(a)], note=Note(2))
        assert [e.changes[0].source.owner for e in store.history()] == ["me", ""]

    def test_of_one_object_and_of_one_revision(self, store: Store) -> None:
        a, b = ref("a"), ref("b")
        store.write([Put(a, document(a, x=1)), Put(b, document(b, x=1))], note=Note(1))
        store.write([Put(b, document(b, x=2))], note=Note(2))
        assert [(e.revision, len(e.changes)) for e in store.history(a)] == [(1, 1)]
        assert [e.revision for e in store.history(revision=2)] == [2]
        assert [e.revision for e in store.history(limit=1)] == [2]

    def test_what_changes_nothing_is_not_remembered(self, store: Store) -> None:
        a = ref("a")
        store.write([Put(a, document(a, x=1))], note=Note(1))
        store.write([Put(a, document(a, x=1))], note=Note(2))
        store.write([Put(a, document(a, x=2))], note=Note(3), dry_run=True)
        assert len(store.history()) == 1


class TestSources:
    """Where an object was applied from."""

    def test_a_moved_object_keeps_its_revision(self, store: Store) -> None:
        a = ref("a")
        store.write([Put(a, document(a, x=1), source=Source("a.yaml", 1, "me"))])
        written = store.write([Put(a, document(a, x=1), source=Source("b.yaml", 7, "me"))])
        stored = store.get(a)
        assert stored is not None
        assert (stored.source, stored.revision, written.revision) == (Source("b.yaml", 7, "me"), 1, 1)

    def test_a_write_without_a_source_keeps_it(self, store: Store) -> None:
        a = ref("a")
        store.write([Put(a, document(a, x=1), source=Source("a.yaml", 1, "me"))])
        store.write([Put(a, document(a, x=2))])
        stored = store.get(a)
        assert stored is not None
        assert stored.source.owner == "me"
