"""What is wrong between the objects: of the mesh as it is, and as it would be with other documents."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from retia.analysis.analyze import analyze, refusing
from retia.analysis.files import placed
from retia.config.parse import Parsed
from retia.control.core import Core
from retia.model.finding import Finding
from retia.model.mesh import EndpointSet, MeshSettings, Service, Workload
from retia.model.objects import ConfigObject, ObjectRef
from retia.policy.facts import FactBase


class Analysing:
    """Remembers the findings of the newest snapshot."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._analysed: tuple[int, tuple[Finding, ...]] = (-1, ())
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
        return placed(found, parsed.documents)

    async def refusing(self, parsed: Parsed) -> tuple[Finding, ...]:
        """The errors for which applying the objects is refused."""
        objects = self._with(parsed, ())
        services = list(self._core.pipeline.facts.services.values())
        found = await asyncio.to_thread(_refusing, objects, services, self._settings.dns_suffix)
        mine = {obj.ref for obj in parsed.objects}
        return placed([f for f in found if f.ref in mine], parsed.documents)

    def _with(self, parsed: Parsed, removed: Collection[ObjectRef]) -> list[ConfigObject]:
        objects = {**self._core.pipeline.facts.objects, **{obj.ref: obj for obj in parsed.objects}}
        return [obj for ref, obj in objects.items() if ref not in removed]

    @property
    def _settings(self) -> MeshSettings:
        found: MeshSettings | None = self._core.pipeline.engine.snapshot.get(("mesh",))
        return found or MeshSettings(trust_domain=self._core.trust_domain)


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


def _refusing(objects: list[ConfigObject], services: list[Service], suffix: str) -> tuple[Finding, ...]:
    return refusing(objects, services, suffix)
