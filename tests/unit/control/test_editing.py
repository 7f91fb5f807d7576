"""Writes to the store on behalf of the API: owners, versions, history, taking back."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from retia.api import schema
from retia.api.backend import ApiError
from retia.config.codes import Code, finding
from retia.control.editing import Editing
from retia.model.finding import Finding
from retia.model.ids import Namespace
from retia.model.objects import ObjectRef
from retia.sources.memory import MemoryStore

RULE = """\
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: {name}{more}}}
spec: {{host: {host}}}
"""


class Analysis:
    """Says what it is told to say."""

    def __init__(self) -> None:
        self.refused: tuple[Finding, ...] = ()

    async def refusing(self, parsed: Any) -> tuple[Finding, ...]:
        return self.refused

    async def now(self) -> tuple[Finding, ...]:
        return ()

    async def as_if(self, parsed: Any, removed: Any = ()) -> tuple[Finding, ...]:
        return ()


class Rig:
    """An editor over a store in memory."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.analysis = Analysis()
        clock = SimpleNamespace(now=lambda: 1000.0)
        configuration = SimpleNamespace(reached=self._reached)
        core = SimpleNamespace(clock=clock)
        self.editing = Editing(
            cast(Any, core), self.store, cast(Any, configuration), cast(Any, self.analysis)
        )

    async def _reached(self, revision: int) -> bool:
        return True

    async def apply(self, *texts: str, **more: Any) -> list[str]:
        documents = [schema.Document(path=f"{n}.yaml", text=text) for n, text in enumerate(texts)]
        result = await self.editing.apply(schema.ApplyRequest(documents=documents, **more))
        return [f"{item.object} {item.action}" for item in result.items]

    def revision(self, name: str) -> int:
        stored = self.store.get(ref(name))
        assert stored is not None
        return stored.revision


def ref(name: str) -> ObjectRef:
    return ObjectRef("DestinationRule", Namespace("default"), name)


def rule(name: str, host: str = "reviews", more: str = "") -> str:
    return RULE.format(name=name, host=host, more=more)


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Rig:
    monkeypatch.setattr("retia.control.editing.ANALYSE_AFTER_S", 0.0)
    return Rig()


class TestVersions:
    async def test_a_document_made_from_the_present_one_is_taken(self, rig: Rig) -> None:
        await rig.apply(rule("a"))
        version = f", resourceVersion: '{rig.revision('a')}'"
        assert await rig.apply(rule("a", "ratings", version)) == ["DestinationRule/default/a configured"]
        stored = rig.store.get(ref("a"))
        assert stored is not None
        assert "resourceVersion" not in stored.document["metadata"]

    async def test_one_made_from_an_older_one_is_refused(self, rig: Rig) -> None:
        await rig.apply(rule("a"))
        await rig.apply(rule("a", "ratings"))
        with pytest.raises(
            ApiError, match="is at revision 2, but the change was made from revision 1"
        ) as caught:
            await rig.apply(rule("b"), rule("a", "x", ", resourceVersion: '1'"))
        assert caught.value.code == "conflict"
        assert rig.store.get(ref("b")) is None

    async def test_a_dump_of_a_kubernetes_cluster_is_taken(self, rig: Rig) -> None:
        assert await rig.apply(rule("a", more=", uid: x, resourceVersion: '123'"))

    async def test_a_version_is_a_number(self, rig: Rig) -> None:
        with pytest.raises(ApiError, match="must be a whole number"):
            await rig.apply(rule("a", more=", resourceVersion: abc"))


class TestOwners:
    async def test_what_left_the_documents_is_pruned(self, rig: Rig) -> None:
        await rig.apply(rule("other"))
        await rig.apply(rule("a"), rule("b"), owner="shop")
        assert await rig.apply(rule("a"), owner="shop", prune=True) == [
            "DestinationRule/default/a unchanged",
            "DestinationRule/default/b deleted",
        ]
        assert rig.store.get(ref("other")) is not None

    async def test_another_owner_is_refused(self, rig: Rig) -> None:
        await rig.apply(rule("a"), owner="shop")
        with pytest.raises(ApiError, match="belongs to the owner 'shop'"):
            await rig.apply(rule("a", "ratings"), owner="bank")
        assert await rig.apply(rule("a", "ratings")) == ["DestinationRule/default/a configured"]

    async def test_an_object_without_owner_can_be_taken_over(self, rig: Rig) -> None:
        await rig.apply(rule("a"))
        await rig.apply(rule("a"), owner="shop")
        stored = rig.store.get(ref("a"))
        assert stored is not None
        assert (stored.source.owner, stored.source.path, stored.revision) == ("shop", "0.yaml", 1)


class TestUndo:
    async def test_every_object_becomes_what_it_was(self, rig: Rig) -> None:
        await rig.apply(rule("a"), owner="shop")
        await rig.apply(rule("b"), owner="shop", prune=True, reason="mistake")
        undone = await rig.editing.undo(schema.UndoRequest())
        assert [f"{i.object} {i.action}" for i in undone.items] == [
            "DestinationRule/default/a created",
            "DestinationRule/default/b deleted",
        ]
        stored = rig.store.get(ref("a"))
        assert stored is not None
        assert stored.source.owner == "shop"
        assert rig.store.history()[0].note.reason == "undo of revision 2"

    async def test_a_later_change_is_not_lost(self, rig: Rig) -> None:
        await rig.apply(rule("a"))
        await rig.apply(rule("a", "ratings"))
        await rig.apply(rule("a", "details"))
        with pytest.raises(ApiError, match="has changed since revision 2"):
            await rig.editing.undo(schema.UndoRequest(revision=2))

    async def test_nothing_to_take_back(self, rig: Rig) -> None:
        with pytest.raises(ApiError, match="a write to take back"):
            await rig.editing.undo(schema.UndoRequest())
        with pytest.raises(ApiError, match="revision 9"):
            await rig.editing.undo(schema.UndoRequest(revision=9))


async def test_what_can_not_be_built_is_not_stored(rig: Rig) -> None:
    rig.analysis.refused = (finding(Code.LIMIT, "too many rules", ref=ref("a")),)
    result = await rig.editing.apply(schema.ApplyRequest(documents=[schema.Document(text=rule("a"))]))
    assert (result.applied, [f.code for f in result.findings]) == (False, ["RT0003"])
    assert rig.store.revision() == 0


async def test_a_dry_run_stores_nothing(rig: Rig) -> None:
    assert await rig.apply(rule("a"), dry_run=True) == ["DestinationRule/default/a created"]
    assert rig.store.revision() == 0
