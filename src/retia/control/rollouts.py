"""Drives the rollouts: looks at each twice a second, writes down what changes, then lets routing know.

A state is in the store before its weight is a fact, so that a controller that restarts goes on at the same
step with the same weight, and takes no step twice; what was counted in the step is then counted anew. A store
that cannot be written stops all progress and changes no weight.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

import structlog

from retia.control.core import Core
from retia.control.measures import Meter, ask
from retia.model.ids import Namespace, qualify
from retia.model.objects import ConfigObject, ObjectRef
from retia.model.snapshot import FactKey
from retia.policy.rollout import (
    Command,
    Evidence,
    Phase,
    Plan,
    Sample,
    State,
    advance,
    begin,
    command,
    plan_of,
    waiting,
)
from retia.sources.errors import StoreError
from retia.sources.space import Space

SPACE = "rollouts"
KIND = "Rollout"
LOOK_EVERY_S = 0.5
"""Bounds how late a bad canary is noticed; arbitrary."""

_log = structlog.get_logger("retia.control.rollouts")


class Unknown(Exception):  # noqa: N818
    """There is no such rollout, or it cannot be told what to do now; one sentence."""


@dataclass(slots=True)
class _Running:
    """One rollout."""

    obj: ConfigObject
    plan: Plan
    state: State | None = None
    meter: Meter = field(default_factory=Meter)
    evidence: Evidence = field(default_factory=Evidence)


@dataclass(frozen=True, slots=True)
class Status:
    """One rollout, for people."""

    ref: ObjectRef
    service: str
    plan: Plan
    state: State
    sample: Sample
    waiting: str


class Rollouts:
    """All rollouts of the mesh."""

    def __init__(self, core: Core, space: Space) -> None:
        self._core = core
        self._space = space
        self._running: dict[ObjectRef, _Running] = {}
        self._lock = asyncio.Lock()

    def recall(self) -> None:
        """Take up what the store remembers, before anything is translated. Raises ``StoreError``."""
        self._core.pipeline.on_change.append(self._on_change)
        remembered = {key: value for key, value, _ in self._space.items()}
        for obj in list(self._core.pipeline.facts.objects.values()):
            if obj.ref.kind == KIND:
                running = self._running[obj.ref] = _Running(obj, plan_of(obj.spec))
                running.state = _decode(remembered.get(_key(obj.ref), b""))
                if running.state is not None:
                    self._publish(obj.ref, running.state.weight)

    async def look(self) -> None:
        """Look at every rollout once."""
        async with self._lock:
            for ref in [r for r in self._running if self._object(r) is None]:
                await self._forget(ref)
        await asyncio.gather(*(self._look_at(running) for running in list(self._running.values())))

    async def command(self, namespace: str, name: str, given: Command) -> Status:
        """Do what a person says. Raises :class:`Unknown`, ``NotPossible``, ``StoreError``."""
        async with self._lock:
            running = await self._find(namespace, name)
            assert running.state is not None
            now = self._core.clock.now()
            await self._become(running, command(running.plan, running.state, given, now))
            return self._status(running)

    async def status(self, namespace: str, name: str) -> Status:
        """Raises :class:`Unknown`, ``StoreError``."""
        async with self._lock:
            return self._status(await self._find(namespace, name))

    async def statuses(self, namespace: str | None) -> list[Status]:
        """All rollouts that have begun, sorted."""
        found = [
            self._status(r)
            for r in self._running.values()
            if r.state is not None and namespace in (None, r.obj.ref.namespace)
        ]
        return sorted(found, key=lambda s: (s.ref.namespace, s.ref.name))

    # -- one rollout -----------------------------------------------------------------------------------------

    async def _look_at(self, running: _Running) -> None:
        try:
            await self._measure(running)
            async with self._lock:
                await self._advance(running)
        except StoreError as error:
            _log.error("a rollout cannot go on", rollout=str(running.obj.ref), reason=str(error))

    async def _advance(self, running: _Running) -> None:
        obj = self._object(running.obj.ref)
        if obj is None or await self._begin(running, obj):
            return
        assert running.state is not None
        new = advance(running.plan, running.state, self._core.clock.now(), running.evidence)
        if new is not running.state:
            await self._become(running, new)

    async def _begin(self, running: _Running, obj: ConfigObject) -> bool:
        """Take up the object as it is now; whether the rollout began (anew) by that."""
        if obj is not running.obj:
            running.obj, running.plan = obj, plan_of(obj.spec)
        state = running.state
        if state is not None and state.plan == running.plan.key:
            return False
        epoch = state.epoch + 1 if state is not None else 1
        await self._become(running, begin(running.plan, self._core.clock.now(), epoch))
        return True

    async def _measure(self, running: _Running) -> None:
        """Ask the proxies, which may take seconds; a command that comes meanwhile is not kept waiting."""
        state = running.state
        if state is None or state.phase.is_final or not state.weight or not running.plan.gates.any:
            return
        if running.meter.epoch != state.epoch:
            running.meter.begin(state.epoch)
        host = qualify(running.obj.spec.service, running.obj.ref.namespace, self._suffix)
        known = self._core.pipeline.facts.services.get(host)
        if known is None:
            running.evidence = Evidence(running.meter.sample, f"there is no service {host}")
            return
        answers = await ask(self._core, host, [port.number for port in known.ports])
        if running.state is None or running.state.epoch != state.epoch:
            return
        running.meter.take(answers.counted)
        running.evidence = Evidence(running.meter.sample, answers.missing)

    async def _become(self, running: _Running, new: State) -> None:
        """The new state, in the store first."""
        ref, old = running.obj.ref, running.state
        await asyncio.to_thread(self._space.set, _key(ref), _encode(new))
        running.state = new
        if old is None or new.epoch != old.epoch:
            if not new.phase.is_final:
                running.evidence = Evidence()
            self._publish(ref, new.weight)
        if old is None or (old.phase, old.step, old.weight) != (new.phase, new.step, new.weight):
            note = _log.warning if new.phase in (Phase.ROLLED_BACK, Phase.ABORTED) else _log.info
            note(
                "a rollout has moved",
                rollout=str(ref),
                phase=str(new.phase),
                step=new.step + 1,
                weight=new.weight,
                reason=new.reason,
            )

    async def _forget(self, ref: ObjectRef) -> None:
        del self._running[ref]
        self._publish(ref, None)
        try:
            await asyncio.to_thread(self._space.set, _key(ref), None)
        except StoreError as error:
            _log.error("a rollout cannot be forgotten", rollout=str(ref), reason=str(error))

    # -- parts -----------------------------------------------------------------------------------------------

    @property
    def _suffix(self) -> str:
        settings = self._core.pipeline.engine.snapshot.get(("mesh",))
        return str(settings.dns_suffix)

    def _object(self, ref: ObjectRef) -> ConfigObject | None:
        return self._core.pipeline.facts.objects.get(ref)

    def _publish(self, ref: ObjectRef, weight: int | None) -> None:
        self._core.pipeline.facts.put_rollout(ref, weight)
        self._core.pipeline.touch()

    def _on_change(self, changed: frozenset[FactKey], _affected: Any) -> None:
        for key in changed:
            if key[:2] == ("config", KIND):
                ref = ObjectRef(KIND, Namespace(key[2]), key[3])
                obj = self._object(ref)
                if obj is not None and ref not in self._running:
                    self._running[ref] = _Running(obj, plan_of(obj.spec))

    async def _find(self, namespace: str, name: str) -> _Running:
        ref = ObjectRef(KIND, Namespace(namespace), name)
        running, obj = self._running.get(ref), self._object(ref)
        if running is None or obj is None:
            raise Unknown(f"there is no Rollout/{namespace}/{name}")
        await self._begin(running, obj)
        return running

    def _status(self, running: _Running) -> Status:
        assert running.state is not None
        now = self._core.clock.now()
        return Status(
            running.obj.ref,
            running.obj.spec.service,
            running.plan,
            running.state,
            running.evidence.sample,
            waiting(running.plan, running.state, now, running.evidence),
        )


def _key(ref: ObjectRef) -> str:
    return f"{ref.namespace}/{ref.name}"


def _encode(state: State) -> bytes:
    return json.dumps(dataclasses.asdict(state)).encode()


def _decode(data: bytes) -> State | None:
    """``None``: nothing is remembered, or nothing that this version understands; the rollout begins anew."""
    try:
        fields = json.loads(data)
        fields["phase"] = Phase(fields["phase"])
        return State(**fields)
    except (ValueError, TypeError, KeyError):
        return None
