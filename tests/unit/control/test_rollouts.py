"""What the driver of rollouts remembers and publishes; how a rollout goes on is the machine's test."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from retia.config.schema.rollout import Rollout
from retia.control.rollouts import KIND, SPACE, Rollouts, Unknown
from retia.model.ids import Namespace
from retia.model.mesh import MeshSettings
from retia.model.objects import ConfigObject, ObjectRef
from retia.policy.rollout import Command, Phase
from retia.sources.errors import StoreError
from retia.sources.memory import MemoryStore
from retia.sources.space import Space

REF = ObjectRef(KIND, Namespace("default"), "reviews")
SPEC = """
service: reviews
stable: {labels: {version: v1}}
canary: {labels: {version: v2}}
steps: [{weight: 10, hold: 10s}, {weight: 50, hold: 10s}]
"""


class Mesh:
    """As much of a controller as rollouts see, with a clock that is told the time."""

    def __init__(self, store: MemoryStore | None = None) -> None:
        self.store = store or MemoryStore()
        self.now = 1000.0
        self.published: list[int | None] = []
        self.objects: dict[ObjectRef, ConfigObject] = {}
        facts = SimpleNamespace(objects=self.objects, services={}, put_rollout=self._put)
        snapshot = SimpleNamespace(get=lambda _: MeshSettings())
        pipeline = SimpleNamespace(
            facts=facts, on_change=[], touch=lambda: None, engine=SimpleNamespace(snapshot=snapshot)
        )
        self.core: Any = SimpleNamespace(
            pipeline=pipeline,
            clock=SimpleNamespace(now=lambda: self.now),
            sessions={},
            registry=SimpleNamespace(hosts={}),
        )
        self.space = Space(self.store, SPACE)
        self.rollouts = Rollouts(self.core, self.space)

    def _put(self, _ref: ObjectRef, weight: int | None) -> None:
        self.published.append(weight)

    def apply(self, spec: str = SPEC) -> None:
        obj = ConfigObject(REF, Rollout.model_validate(yaml.safe_load(spec)))
        self.objects[REF] = obj
        for listener in self.core.pipeline.on_change:
            listener(frozenset({("config", *REF.key)}), frozenset())

    def look(self, at: float) -> None:
        self.now = at
        asyncio.run(self.rollouts.look())


def started() -> Mesh:
    mesh = Mesh()
    mesh.rollouts.recall()
    mesh.apply()
    mesh.look(1000.0)
    return mesh


def test_an_applied_rollout_begins() -> None:
    assert started().published == [10]


def test_it_goes_on_by_time_where_there_are_no_gates() -> None:
    mesh = started()
    mesh.look(1009.0)
    mesh.look(1010.0)
    mesh.look(1020.0)
    assert mesh.published == [10, 50, 100]
    assert asyncio.run(mesh.rollouts.status("default", "reviews")).state.phase is Phase.PROMOTED


def test_a_controller_that_restarts_goes_on_where_it_was() -> None:
    before = started()
    before.look(1010.0)
    after = Mesh(before.store)
    after.apply()
    after.rollouts.recall()
    assert after.published == [50], "the weight is there before anything is translated"
    after.look(1019.0)
    assert after.published == [50], "no step is taken twice"
    after.look(1020.0)
    assert after.published == [50, 100]


def test_a_memory_that_makes_no_sense_begins_anew() -> None:
    mesh = Mesh()
    mesh.space.set("default/reviews", b'{"phase": "unheard of"}')
    mesh.apply()
    mesh.rollouts.recall()
    mesh.look(1000.0)
    assert mesh.published == [10]


class Broken(Space):
    def set(self, key: str, value: bytes | None) -> None:
        raise StoreError("the disk is full")


def test_what_cannot_be_written_down_does_not_happen(monkeypatch: pytest.MonkeyPatch) -> None:
    mesh = started()
    monkeypatch.setattr(mesh.rollouts, "_space", Broken(mesh.store, SPACE))
    mesh.look(1010.0)
    assert mesh.published == [10]
    monkeypatch.setattr(mesh.rollouts, "_space", mesh.space)
    mesh.look(1011.0)
    assert mesh.published == [10, 50]


def test_a_command_holds_at_once_and_is_remembered() -> None:
    mesh = started()
    status = asyncio.run(mesh.rollouts.command("default", "reviews", Command.ABORT))
    assert (status.state.phase, status.state.weight) == (Phase.ABORTED, 0)
    assert mesh.published == [10, 0]
    mesh.look(2000.0)
    assert mesh.published == [10, 0]


def test_a_deleted_rollout_is_forgotten() -> None:
    mesh = started()
    del mesh.objects[REF]
    mesh.look(1001.0)
    assert mesh.published == [10, None]
    assert list(mesh.space.items()) == []
    with pytest.raises(Unknown):
        asyncio.run(mesh.rollouts.status("default", "reviews"))


def test_other_versions_begin_anew_and_other_gates_do_not() -> None:
    mesh = started()
    mesh.look(1010.0)
    mesh.apply(SPEC + "gates: {minRequests: 5}\n")
    mesh.look(1011.0)
    assert mesh.published == [10, 50]
    mesh.apply(SPEC.replace("v2", "v3"))
    mesh.look(1012.0)
    assert mesh.published == [10, 50, 10]


def test_without_its_service_it_waits_and_says_so() -> None:
    mesh = Mesh()
    mesh.rollouts.recall()
    mesh.apply(SPEC + "gates: {minRequests: 5}\n")
    for at in (1000.0, 1010.0, 1500.0):
        mesh.look(at)
    status = asyncio.run(mesh.rollouts.status("default", "reviews"))
    assert status.waiting == "measurements: there is no service reviews.default.svc.cluster.local"
    assert mesh.published == [10]
