"""What is wrong between the objects: of the mesh as it is, and as it would be with other documents."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable

from retia.analysis.analyze import analyze
from retia.analysis.files import placed
from retia.config.parse import Parsed
from retia.control import delivery
from retia.control.core import Core
from retia.control.trial import tried
from retia.model.finding import Finding, Level
from retia.model.mesh import EndpointSet, MeshSettings, Workload
from retia.model.objects import ConfigObject, ObjectRef
from retia.policy.facts import FactBase

FRESH_S = 5.0
"""How long the findings of proxies' resources are good for: proxies ask for more without a new snapshot."""


class Analysing:
    """Remembers the findings of the newest snapshot."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._analysed: tuple[int, tuple[Finding, ...]] = (-1, ())
        self._built: tuple[int, float, tuple[Finding, ...]] = (-1, 0.0, ())
        self._lock = asyncio.Lock()

    async def now(self) -> tuple[Finding, ...]:
        """What is wrong in the mesh as it is."""
        async with self._lock:
            revision = self._core.pipeline.engine.snapshot.revision
            if self._analysed[0] != revision:
                facts = self._core.pipeline.facts
                objects = list(facts.objects.values())
                services = list(facts.services.values())
                endpoints = [EndpointSet(s.host, facts.endpoints(s.host)) for s in services]
                workloads = list(facts.workloads.values())
                suffix = self._settings.dns_suffix
                found = await asyncio.to_thread(analyze, objects, services, endpoints, workloads, suffix)
                self._analysed = (revision, found)
            return self._analysed[1]

    async def as_if(self, parsed: Parsed, removed: Collection[ObjectRef] = ()) -> tuple[Finding, ...]:
        """What would be wrong with these objects in place of their namesakes, and without ``removed``."""
        objects = self._with(parsed, removed)
        workloads = list(self._core.pipeline.facts.workloads.values())
        found = await asyncio.to_thread(_as_if, objects, workloads, self._settings)
        built = await asyncio.to_thread(tried, self._core.pipeline.engine.snapshot, parsed.objects)
        return placed([*found, *unsaid(built, found)], parsed.documents)

    async def refusing(self, parsed: Parsed) -> tuple[Finding, ...]:
        """The errors for which applying the objects is refused."""
        snapshot = self._core.pipeline.engine.snapshot
        found = await asyncio.to_thread(tried, snapshot, parsed.objects)
        return placed([f for f in found if f.level is Level.ERROR], parsed.documents)

    async def of_proxies(self) -> tuple[Finding, ...]:
        """What building the resources that proxies have has to say."""
        revision, moment = self._core.pipeline.engine.snapshot.revision, self._core.clock.monotonic()
        if self._built[0] == revision and moment < self._built[1]:
            return self._built[2]
        found: dict[Finding, None] = {}
        looked = 0
        for _, state in list(self._core.registry.all_proxies()):
            for name in delivery.names_of(self._core, state):
                resource = self._core.pipeline.engine.resource(state.proxy, name)
                found.update((each, None) for each in resource.findings)
                looked += 1
                if looked % delivery.STEP == 0:
                    await asyncio.sleep(0)
        self._built = (revision, moment + FRESH_S, tuple(sorted(found, key=str)))
        return self._built[2]

    def _with(self, parsed: Parsed, removed: Collection[ObjectRef]) -> list[ConfigObject]:
        objects = {**self._core.pipeline.facts.objects, **{obj.ref: obj for obj in parsed.objects}}
        return [obj for ref, obj in objects.items() if ref not in removed]

    @property
    def _settings(self) -> MeshSettings:
        found: MeshSettings | None = self._core.pipeline.engine.snapshot.get(("mesh",))
        return found or MeshSettings(trust_domain=self._core.trust_domain)


def unsaid(more: Iterable[Finding], said: Iterable[Finding]) -> list[Finding]:
    """Those of ``more`` that say of an object what nobody has said yet: analysis words some faults too that
    building meets."""
    known = {(each.code, each.ref) for each in said}
    return [each for each in more if (each.code, each.ref) not in known]


def _as_if(
    objects: list[ConfigObject], workloads: list[Workload], settings: MeshSettings
) -> tuple[Finding, ...]:
    facts = FactBase(settings)
    facts.put_objects(objects)
    facts.put_workloads(workloads)
    facts.take_changes()
    services = list(facts.services.values())
    endpoints = [EndpointSet(s.host, facts.endpoints(s.host)) for s in services]
    return analyze(objects, services, endpoints, workloads, settings.dns_suffix)
