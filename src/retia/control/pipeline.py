"""From facts to notices: one change in, the names that it affects out.

The leading edge goes at once: a change that comes alone is not delayed. Those that come within
:data:`DEBOUNCE_S` after it are taken together, so a burst costs a few snapshots and not one each.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from retia.aio.tasks import Wake
from retia.control.hub import Hub
from retia.model.ids import Host
from retia.model.mesh import MeshSettings
from retia.model.resource import Name
from retia.model.snapshot import FactKey, Snapshot
from retia.policy.facts import FactBase
from retia.sources.errors import StoreError
from retia.sources.vips import Vips
from retia.xds.cache import Builder, Engine, Lister

DEBOUNCE_S = 0.003
"""How long after one snapshot the next is made at the earliest; a few milliseconds, arbitrary."""

RETRY_S = 5.0
RELEASE_AFTER_S = 24 * 3600.0
"""How long a vanished host keeps its virtual address: long enough for a service that is deployed anew, and
for programs that keep what they once resolved. Arbitrary."""
TRIM_EVERY_S = 60.0

_log = structlog.get_logger("retia.control.pipeline")


@dataclass(slots=True)
class PipelineCounters:
    snapshots: int = 0
    facts_changed: int = 0
    names_affected: int = 0
    notified: int = 0
    failures: int = 0
    last_s: float = 0.0
    """How long the last snapshot took."""


class Pipeline:
    """The facts, the engine over them, and the loop between."""

    def __init__(
        self,
        settings: MeshSettings,
        vips: Vips,
        hub: Hub,
        build: Builder,
        listed: Lister,
        debounce_s: float = DEBOUNCE_S,
    ) -> None:
        self.facts = FactBase(settings)
        self.engine = Engine(Snapshot(), build, listed)
        self.counters = PipelineCounters()
        self.on_change: list[Callable[[frozenset[FactKey], frozenset[Name]], None]] = []
        """Called with the facts that changed and the names that may, when the engine has taken them."""
        self._vips = vips
        self._hub = hub
        self._debounce_s = debounce_s
        self._wake = Wake()
        self._retry_vips_at = 0.0
        self._vanished: dict[Host, float] = {}

    def touch(self) -> None:
        """Facts were put: make a snapshot soon."""
        self._wake.ring()

    async def run(self) -> None:
        """Until cancelled."""
        trim_at = time.monotonic() + TRIM_EVERY_S
        while True:
            if await self._wake.wait(timeout_s=TRIM_EVERY_S):
                try:
                    await self.cycle()
                except Exception:  # noqa: BLE001 - the mesh goes on with what it has
                    self.counters.failures += 1
                    _log.exception("a change could not be taken")
                await asyncio.sleep(self._debounce_s)
            if time.monotonic() >= trim_at:
                self.engine.trim(self._hub.names)
                await self.release_vips(time.monotonic())
                trim_at = time.monotonic() + TRIM_EVERY_S

    async def cycle(self) -> frozenset[FactKey]:
        """One snapshot from all that was put; the keys that changed."""
        await self._allocate()
        started = time.perf_counter()
        snapshot, changed = self.engine.snapshot.with_changes(self.facts.take_changes())
        if not changed:
            return changed
        affected = self.engine.update(snapshot, changed)
        counters = self.counters
        counters.snapshots += 1
        counters.facts_changed += len(changed)
        counters.names_affected += len(affected)
        counters.notified += self._hub.notify(affected)
        for listener in self.on_change:
            listener(changed, affected)
        counters.last_s = time.perf_counter() - started
        return changed

    async def release_vips(self, now: float) -> None:
        """Give back the virtual addresses of hosts that vanished :data:`RELEASE_AFTER_S` ago; ``now`` in
        seconds of a clock that never goes back. A controller that starts counts anew."""
        present = self.facts.services
        held = [host for host in self._vips.addresses() if host not in present]
        self._vanished = {host: self._vanished.get(host, now) for host in held}
        due = [host for host, since in self._vanished.items() if now - since >= RELEASE_AFTER_S]
        if not due:
            return
        try:
            await asyncio.to_thread(self._vips.release, due)
        except StoreError as error:
            _log.error("virtual addresses can't be given back", hosts=len(due), reason=str(error))
            return
        self.facts.drop_vips(due)
        for host in due:
            del self._vanished[host]

    async def _allocate(self) -> None:
        """Virtual addresses for hosts that have none. Without one a service can't be named, but all else
        goes on; it is tried again later."""
        hosts = self.facts.hosts_without_vip()
        if not hosts or time.monotonic() < self._retry_vips_at:
            return
        try:
            self.facts.put_vips(await asyncio.to_thread(self._vips.allocate, hosts))
        except StoreError as error:
            _log.error("no virtual addresses can be given", hosts=len(hosts), reason=str(error))
            self._retry_vips_at = time.monotonic() + RETRY_S
            asyncio.get_running_loop().call_later(RETRY_S, self.touch)
