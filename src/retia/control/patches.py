"""EnvoyFilters before they reach proxies: one proxy's Envoy is asked first.

A raw patch can break every proxy of the mesh at once, and nothing here knows what Envoy will think of it. So
an object that is new or changed is tried on one proxy that it selects: its resources are built with the
change and sent to its agent, which lets the very Envoy binary validate them. Only then is the change a fact
that translation reads. Until then, and where Envoy refuses, the last accepted form stays in force; it is
kept in the store, so that a restarted controller needs no second opinion.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import structlog

from retia.aio.tasks import Wake
from retia.config.codes import Code, finding
from retia.config.document import to_document
from retia.config.parse import parse_document
from retia.model.finding import Finding
from retia.model.ids import MESH_NAMESPACE
from retia.model.mesh import Proxy, ProxyKind, labels_match, labels_of
from retia.model.objects import ConfigObject, ObjectRef
from retia.model.resource import Built, Name, TypeUrl
from retia.model.snapshot import FactKey, PlainView, Snapshot, View
from retia.sources.errors import StoreError
from retia.sources.space import Space
from retia.translate.translate import build, listed
from retia.xds.wire import encode

if TYPE_CHECKING:
    from retia.control.core import Core

SPACE = "patches"
KIND = "EnvoyFilter"
LOOK_EVERY_S = 5.0
"""How often one that found no proxy to be tried on is looked at again."""
MOST_RESOURCES = 200
"""Tried at one time; a proxy seldom has more that one object changes. Arbitrary."""

K = TypeVar("K")
T = TypeVar("T")
_log = structlog.get_logger("retia.control.patches")


@dataclass(slots=True)
class _Trial:
    """An object that is not in force."""

    obj: ConfigObject
    refused: str = ""
    """What Envoy, or the reading of its values, says against it; empty: not tried yet."""
    waiting: str = "no proxy that it selects is connected"


@dataclass(slots=True)
class Patches:
    """The objects on their way to the proxies."""

    core: Core
    space: Space
    _trials: dict[ObjectRef, _Trial] = field(default_factory=dict)
    _accepted: dict[ObjectRef, ConfigObject] = field(default_factory=dict)
    _wake: Wake = field(default_factory=Wake)

    def recall(self, objects: Iterable[ConfigObject]) -> None:
        """At the start: what was accepted before is in force at once."""
        for key, value, _ in self.space.items():
            found = parse_document(json.loads(value)).objects
            for obj in found:
                if str(obj.ref) == key:
                    self._accepted[obj.ref] = obj
                    self.core.pipeline.facts.put_patch(obj.ref, obj)
        self._take(obj for obj in objects if obj.ref.kind == KIND)

    def on_change(self, changed: frozenset[FactKey]) -> None:
        """Facts have changed: objects may be new, other, or gone."""
        refs = [ObjectRef(KIND, *key[2:]) for key in changed if key[:2] == ("config", KIND)]  # type: ignore[arg-type]
        snapshot = self.core.pipeline.engine.snapshot
        for ref in refs:
            obj = snapshot.get(("config", *ref.key))
            if obj is not None:
                self._take([obj])
            elif self._trials.pop(ref, None) or ref in self._accepted:
                self._accept(ref, None)

    def findings(self) -> Iterator[Finding]:
        """What is not in force, and why."""
        for ref, trial in sorted(self._trials.items(), key=lambda item: item[0].key):
            if trial.refused:
                yield finding(
                    Code.REJECTED,
                    f"a trial on one proxy failed, so that no proxy gets it: {trial.refused}",
                    ref=ref,
                    remedy="correct the patch; its last accepted form, if there is one, stays in force",
                )
            else:
                yield finding(Code.UNTRIED, f"it is not in force yet: {trial.waiting}", ref=ref)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._wake.wait(timeout_s=LOOK_EVERY_S)
            for trial in [t for t in self._trials.values() if not t.refused]:
                await self._try(trial)

    def _take(self, objects: Iterable[ConfigObject]) -> None:
        for obj in objects:
            accepted = self._accepted.get(obj.ref)
            if accepted is not None and _same(accepted, obj):
                self._trials.pop(obj.ref, None)
            else:
                self._trials[obj.ref] = _Trial(obj)
                self._wake.ring()

    async def _try(self, trial: _Trial) -> None:
        snapshot = self.core.pipeline.engine.snapshot
        proxies = [(host, proxy) for host, proxy in self._connected() if _selects(trial.obj, proxy)]
        if not proxies:
            return
        for host, proxy in proxies:
            resources, wrong = self._resources(snapshot, trial.obj, proxy)
            if wrong:
                self._refuse(trial, wrong)
                return
            if resources:
                await self._ask(trial, host, proxy, resources)
                return
        self._accept(trial.obj.ref, trial.obj)  # nothing that any proxy has is changed

    async def _ask(self, trial: _Trial, host: str, proxy: Proxy, resources: list[tuple[Name, bytes]]) -> None:
        session = self.core.sessions.get(host)
        if session is None:
            return
        try:
            reply = await session.validate(proxy.id, resources)
        except Exception as error:  # noqa: BLE001 - a lost agent is no verdict
            trial.waiting = str(error) or type(error).__name__
            return
        if self._trials.get(trial.obj.ref) is not trial:
            return  # it was changed meanwhile
        text = bytes(reply.body).decode(errors="replace")
        if reply.status == 200:
            self._accept(trial.obj.ref, trial.obj)
        elif reply.status == 422:
            self._refuse(trial, text)
        else:
            trial.waiting = f"the agent of host {host} can't try it: {text}"

    def _refuse(self, trial: _Trial, why: str) -> None:
        trial.refused = why
        _log.error("a patch is refused", object=str(trial.obj.ref), reason=why)

    def _accept(self, ref: ObjectRef, obj: ConfigObject | None) -> None:
        self._trials.pop(ref, None)
        if obj is not None:
            self._accepted[ref] = obj
        else:
            self._accepted.pop(ref, None)
        self.core.pipeline.facts.put_patch(ref, obj)
        self.core.pipeline.touch()
        try:
            self.space.set(str(ref), json.dumps(to_document(obj)).encode() if obj is not None else None)
        except StoreError as error:
            _log.error("an accepted patch is not kept", object=str(ref), reason=str(error))

    def _connected(self) -> Iterator[tuple[str, Proxy]]:
        """Proxies of connected hosts, always in the same order."""
        for host_id in sorted(self.core.sessions):
            host = self.core.registry.hosts.get(host_id)
            for _, state in sorted(host.proxies.items()) if host is not None else ():
                yield host_id, state.proxy

    def _resources(
        self, snapshot: Snapshot, obj: ConfigObject, proxy: Proxy
    ) -> tuple[list[tuple[Name, bytes]], str]:
        """What the change makes of the proxy's resources, and what is wrong with the change itself."""
        now = PlainView(snapshot, proxy)
        then = _With(now, obj)
        names = dict.fromkeys(self._names(proxy))
        for kind in (TypeUrl.LISTENER, TypeUrl.CLUSTER):
            names.update(
                dict.fromkeys(Name(kind, each) for each in (*listed(now, kind), *listed(then, kind)))
            )
        found = []
        for name in names:
            built = build(then, name)
            wrong = [f for f in built.findings if f.ref == obj.ref and f.code == Code.BAD_VALUE]
            if wrong:
                return [], f"{wrong[0].field} {wrong[0].message}"
            if built.message is not None and built.message != build(now, name).message:
                found.append((name, _wire(name, built)))
        return found[:MOST_RESOURCES], ""

    def _names(self, proxy: Proxy) -> list[Name]:
        found = self.core.registry.proxy(proxy.id)
        return sorted(found[1].acked, key=lambda n: (n.type, n.name)) if found is not None else []


class _With:
    """A view in which one object is in force as it is now."""

    def __init__(self, view: View, obj: ConfigObject) -> None:
        self._view = view
        self._obj = obj

    def fact(self, *key: str) -> Any:
        return self._obj if key == _fact(self._obj.ref) else self._view.fact(*key)

    def index(self, name: str, key: str) -> tuple[Any, ...]:
        return self._view.index(name, key)

    def proxy(self, attribute: str) -> Any:
        return self._view.proxy(attribute)

    def query(self, function: Callable[[View, K], T], key: K) -> T:
        return function(self, key)


def _fact(ref: ObjectRef) -> FactKey:
    return ("patch", ref.namespace, ref.name)


def _same(accepted: ConfigObject, obj: ConfigObject) -> bool:
    """Whether the change is the same; age and labels of the object don't matter to Envoy."""
    return bool(accepted.spec == obj.spec)


def _selects(obj: ConfigObject, proxy: Proxy) -> bool:
    if proxy.kind is ProxyKind.HOST_GATEWAY or obj.ref.namespace not in (MESH_NAMESPACE, proxy.namespace):
        return False
    selector = obj.spec.workload_selector
    return selector is None or labels_match(labels_of(selector.labels), proxy.labels)


def _wire(name: Name, built: Built) -> bytes:
    return encode(name.type, built).wire
