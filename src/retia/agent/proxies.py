"""This host's proxies: each an Envoy in the keeper's care, a world, and a socket over which it is configured.

A proxy is started before its configuration is there; it waits. It is stopped last, when its workload has left
the endpoints. After a restart of the worker the Envoys are still there: :meth:`Proxies.adopt` gives each its
socket and its world back, from what was kept on disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from retia._generated import agent_pb2 as pb
from retia.agent import envoy
from retia.agent.keeper import KeeperError
from retia.agent.keeping import KeeperClient, ProcessEvent
from retia.agent.paths import Paths
from retia.agent.rpc import Message
from retia.agent.state import State
from retia.agent.world import ProxyWorld
from retia.agent.xds import Listener, ProxyXds
from retia.api.local import ProxyInfo, ProxyState
from retia.model.mesh import ProxyKind
from retia.model.resource import Name, Resource

STOP_GRACE_S = 3.0
SAMPLE_EVERY_S = 5.0
_log = structlog.get_logger("retia.agent.proxies")


@dataclass(slots=True)
class RunningProxy:
    """One proxy. ``slot`` is its workload's number on this host; 0: the host gateway."""

    id: str
    kind: ProxyKind
    slot: int
    workload: str
    folder: Path
    log: Path
    world: ProxyWorld
    xds: ProxyXds
    pid: int = 0
    restarts: int = 0
    draining: bool = False
    health: envoy.Health = field(default_factory=lambda: envoy.Health("PRE_INITIALIZING"))
    certificate_expiry: float = 0.0
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def process(self) -> str:
        """Its name at the keeper."""
        return f"envoy:{self.id}"

    @property
    def state(self) -> ProxyState:
        if self.draining:
            return "draining"
        if not self.pid or self.health.state == "DOWN":
            return "down"
        return "ready" if self.health.state == "LIVE" else "starting"

    def message(self) -> Message:
        """As ``retia.agent.v1.ProxyHealth``."""
        return pb.ProxyHealth(
            state=self.state,
            allocated_bytes=self.health.allocated_bytes,
            rss_bytes=self.health.rss_bytes,
            certificate_expiry=int(self.certificate_expiry),
            envoy_version=self.health.version,
            restarts=self.restarts,
            pid=self.pid,
            connected=self.xds.connected,
        )

    def info(self) -> ProxyInfo:
        """As the local socket shows it."""
        return ProxyInfo(
            id=self.id,
            kind=self.kind,
            workload=self.workload,
            state=self.state,
            connected=self.xds.connected,
            pid=self.pid,
            restarts=self.restarts,
            envoy_version=self.health.version,
            allocated_bytes=self.health.allocated_bytes,
            rss_bytes=self.health.rss_bytes,
            certificate_expiry=self.certificate_expiry,
            log_path=str(self.log),
            admin_path=str(self.folder / "admin.sock"),
            acked=len(self.xds.acked),
            nacked=len(self.xds.nacked),
        )


class Proxies:
    """All proxies of this host."""

    def __init__(
        self,
        paths: Paths,
        keeper: KeeperClient,
        state: State,
        binary: envoy.Binary,
        listener: Listener,
        away: Callable[[], bool],
    ) -> None:
        self._paths = paths
        self._keeper = keeper
        self._state = state
        self._binary = binary
        self._listener = listener
        self._away = away
        self._running: dict[str, RunningProxy] = {}

    @property
    def binary(self) -> envoy.Binary:
        return self._binary

    def get(self, proxy: str) -> RunningProxy | None:
        return self._running.get(proxy)

    def all(self) -> list[RunningProxy]:
        return list(self._running.values())

    async def start(
        self, proxy: str, kind: ProxyKind, slot: int, workload: str, cgroup: str = ""
    ) -> RunningProxy:
        """Start a proxy that did not exist. Raises ``KeeperError``, ``OSError``; nothing is left then."""
        running = self._make(proxy, kind, slot, workload)
        try:
            self._state.drop("held", proxy)
            await self._keeper.release(f"unix:{running.folder / 'xds.sock'}")
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(running.folder)
            await self._serve(running)
            await self._spawn(running, cgroup)
        except (KeeperError, OSError):
            await self.stop(proxy)
            raise
        return running

    async def adopt(
        self, proxy: str, kind: ProxyKind, slot: int, workload: str, cgroup: str = ""
    ) -> RunningProxy:
        """Take over a proxy that an earlier worker started; one that is gone is started.

        Raises as :meth:`start`.
        """
        running = self._make(proxy, kind, slot, workload)
        running.world.load(self._state.held(proxy))
        found = (await self._keeper.processes()).get(running.process)
        await self._serve(running)
        if found is None:
            await self._spawn(running, cgroup)
        else:
            running.pid, running.restarts = found.pid, found.restarts
        return running

    async def stop(self, proxy: str, grace_s: float = STOP_GRACE_S) -> None:
        """End a proxy and remove everything of it. Never raises."""
        running = self._running.get(proxy)
        if running is None:
            return
        running.draining = True
        try:
            await self._keeper.stop(running.process, grace_s)
            if running.pid:
                async with asyncio.timeout(grace_s + 6.0):
                    await running.ended.wait()
        except (KeeperError, TimeoutError) as error:
            _log.debug("a proxy was gone before it was stopped", proxy=proxy, reason=str(error))
        self._running.pop(proxy, None)
        await running.xds.close()
        with contextlib.suppress(KeeperError):
            await self._keeper.release(f"unix:{running.folder / 'xds.sock'}")
        self._state.drop("held", proxy)
        shutil.rmtree(running.folder, ignore_errors=True)

    async def let_go(self) -> None:
        """Stop serving, and leave the Envoys to the next worker."""
        for running in self._running.values():
            await running.xds.close()

    async def end_strangers(self) -> None:
        """End Envoys that belong to no proxy that is known."""
        known = {running.process for running in self._running.values()}
        for name in await self._keeper.processes():
            if name.startswith("envoy:") and name not in known:
                with contextlib.suppress(KeeperError):
                    await self._keeper.stop(name, STOP_GRACE_S)

    def on_process(self, event: ProcessEvent) -> None:
        """The keeper tells of a start or an end."""
        running = next((r for r in self._running.values() if r.process == event.name), None)
        if running is None:
            return
        if not event.ended:
            running.pid, running.restarts = event.pid, event.restarts
            return
        running.pid = 0
        running.health = envoy.Health("DOWN")
        if event.restarting:
            _log.error("a proxy ended and is started again", proxy=running.id, status=event.status)
        else:
            running.ended.set()

    async def sample_all(self, tell: Callable[[RunningProxy], None]) -> None:
        """Ask every proxy how it is, again and again, until cancelled."""
        while True:
            started = time.monotonic()
            for running in self.all():
                await self.sample(running)
                tell(running)
            await asyncio.sleep(max(0.5, SAMPLE_EVERY_S - (time.monotonic() - started)))

    async def sample(self, running: RunningProxy) -> None:
        running.health = await envoy.sample(running.folder, running.pid)

    def _make(self, proxy: str, kind: ProxyKind, slot: int, workload: str) -> RunningProxy:
        def keep(resource: Resource) -> None:
            self._state.put("held", proxy, resource)

        def drop(name: Name) -> None:
            self._state.remove("held", proxy, name)

        def standby(name: Name) -> Resource | None:
            return self._state.standby(workload, name) if workload else None

        world = ProxyWorld(keep, drop, standby)
        xds = ProxyXds(proxy, world, self._listener, self._away)
        running = RunningProxy(
            proxy, kind, slot, workload, self._paths.proxy(slot), self._paths.proxy_log(proxy), world, xds
        )
        self._running[proxy] = running
        return running

    async def _serve(self, running: RunningProxy) -> None:
        running.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        sock = await self._keeper.open_unix(running.folder / "xds.sock")
        await running.xds.start(sock)

    async def _spawn(self, running: RunningProxy, cgroup: str) -> None:
        config = envoy.bootstrap(running.id, running.workload, running.folder)
        envoy.write_bootstrap(config, running.folder)
        threads = 1 if running.kind is ProxyKind.SIDECAR else 2
        program = envoy.program(self._binary, running.id, running.folder, running.log, threads, cgroup)
        running.pid = await self._keeper.spawn(program)
