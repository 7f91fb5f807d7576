"""The supervisor: makes what runs equal to what a mesh file wants, and keeps it so.

Everything that changes the mesh goes through one lock, so a repeated ``up``, a restart after a crash and
``down`` never meet half way. A change that fails is taken back: what it started is stopped, what it replaced
is replaced again by what was there, and the configuration becomes what it was.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from retia.api.local import LocalError, Stop, WorkloadInfo, WorkloadList, Workloads
from retia.cli.session import Session
from retia.cli.tail import shorten
from retia.cli.up import configuration, gateways, memory
from retia.cli.up import instance as instances
from retia.cli.up.errors import UpError
from retia.cli.up.instance import Instance
from retia.cli.up.plan import Plan, make_plan
from retia.cli.up.publishing import Publisher
from retia.cli.up.spec import Care, Slot, Spec, Wanted
from retia.model import annotation

LISTEN_S = 60.0
"""How long a program may take until it listens on its ports and is healthy; a JVM on a busy laptop needs
some of it."""
POLL_S = 0.1
IDLE_POLL_S = 1.0
SETTLE_S = 0.5
"""A program without ports counts as started when it has run this long."""
AT_ONCE = 4
"""Instances started at the same time; arbitrary, above the cores of a small machine."""
RESTART_FIRST_S = 0.5
RESTART_LAST_S = 30.0
STEADY_S = 60.0
"""An instance that ran this long has no failures behind it."""
START_ATTEMPTS = 3
"""How often a program that ends while it starts is tried again, where its restart policy allows it."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class SlotState:
    """One line of the live status."""

    slot: Slot
    workload: str
    state: str
    pid: int = 0
    address: str = ""
    health: str = ""
    restarts: int = 0


class Supervisor:
    """Owns the instances of one mesh file. Made once; :meth:`apply` as often as there is a new file."""

    def __init__(self, session: Session, say: Say, capture: str) -> None:
        self._session = session
        self._say = say
        self._capture = capture
        self._lock = asyncio.Lock()
        self._wanted = Wanted()
        self._running: dict[Slot, Instance] = {}
        self._others: set[Instance] = set()
        self._ended: dict[Slot, str] = {}
        self._restarts: dict[Slot, int] = {}
        self._failures: dict[Slot, int] = {}
        self._memory = memory.read(session.home)
        self._seen: dict[str, WorkloadInfo] = {}
        self._publisher = Publisher(session, say)
        self._group: asyncio.TaskGroup | None = None
        self._stopping = False
        self._limit = asyncio.Semaphore(AT_ONCE)
        self._environ = {k: v for k, v in os.environ.items() if not k.startswith("RETIA_")}
        self._environ["RETIA_HOME"] = str(session.home)
        self._promised: set[int] = set()
        self._waiting = 0

    # -- what others call

    @property
    def instances(self) -> list[Instance]:
        return [self._running[slot] for slot in sorted(self._running)]

    @property
    def wanted(self) -> Wanted:
        return self._wanted

    def status(self) -> list[SlotState]:
        """All slots, running or not, sorted."""
        return [self._state(slot) for slot in sorted({*self._wanted.specs, *self._running})]

    async def run(self) -> None:
        """Watches instances and refreshes what is seen of them, until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            while True:
                with contextlib.suppress(LocalError):
                    self._seen = await asyncio.to_thread(self._workloads)
                await asyncio.to_thread(shorten, self._session.log)
                await asyncio.sleep(POLL_S if self._waiting else IDLE_POLL_S)

    async def clear_leftovers(self) -> None:
        """Stops what an earlier supervisor started and could not stop, because it was killed."""
        with contextlib.suppress(LocalError):
            present = await asyncio.to_thread(self._workloads)
            for workload in sorted(self._memory.workloads & set(present)):
                self._say(f"stopping {workload}, left by an earlier 'retia up'")
                request = Stop(workload=workload, drain_s=0)
                await asyncio.to_thread(instances.call_stop, self._session, request, 30.0)
        self._remember()

    async def apply(self, wanted: Wanted, say: Say) -> Plan:
        """Makes the mesh as ``wanted`` and returns what was done; :class:`UpError` after taking it back."""
        async with self._lock:
            before, objects = self._wanted, self._memory.objects
            plan = self._plan(wanted)
            self._publisher.check(wanted.publish)
            try:
                await self._change(plan, wanted, say)
            except BaseException as error:
                if isinstance(error, UpError | ExceptionGroup) and not self._stopping:
                    await self._take_back(before, objects, say)
                raise _first(error) from error
            return plan

    async def stop(self) -> None:
        """Stops everything, callers before what they call."""
        self._stopping = True
        async with self._lock:
            await self._publisher.stop()
            for service in [*reversed(self._wanted.order), None]:
                slots = [s for s in self._running if service is None or s.service == service]
                if slots:
                    self._say(f"stopping {', '.join(self._running[s].name for s in sorted(slots))}")
                await self._stop_slots(slots, drain_s=0)
            self._remember()

    def kill(self) -> None:
        """At once, for a second Ctrl-C."""
        self._stopping = True
        for running in (*self._running.values(), *self._others):
            running.kill()

    # -- changing

    def _plan(self, wanted: Wanted) -> Plan:
        """A program that has done its work counts as running: saying ``up`` again does not do it again."""
        specs = self._wanted.specs
        running = {s: specs[s] for s, why in self._ended.items() if why == "done" and s in specs}
        running.update({slot: running.spec for slot, running in self._running.items()})
        return make_plan(running, wanted.specs, self._publisher.published, wanted.publish)

    async def _change(self, plan: Plan, wanted: Wanted, say: Say) -> None:
        objects = await configuration.apply(self._session, wanted.documents, say)
        stale = self._memory.objects - objects
        self._memory = replace(self._memory, objects=self._memory.objects | objects)
        before = self._wanted
        self._wanted = wanted
        self._ended = {slot: why for slot, why in self._ended.items() if slot in wanted.specs}
        await configuration.delete(self._session, stale)
        self._memory = replace(self._memory, objects=objects)
        for service in [*reversed(before.order), None]:
            gone = [s for s in plan.stop if s in self._running and (service is None or s.service == service)]
            for slot in gone:
                say(f"stopping {self._running[slot].name}")
            await self._stop_slots(gone)
        await self._start_in_order(plan, wanted, say)
        if plan.publish:
            await self._publisher.change(wanted.publish)
            for item in wanted.publish:
                say(f"{item.host}:{item.port} is published on {item.address}:{item.host_port}")
        for line in await configuration.warnings(self._session):
            say(line)
        self._remember()

    async def _take_back(self, before: Wanted, objects: frozenset[str], say: Say) -> None:
        say("taking the change back")
        try:
            added = self._memory.objects - objects
            await self._change(self._plan(before), before, say)
            await configuration.delete(self._session, added - self._memory.objects)
        except (UpError, ExceptionGroup) as error:
            say(f"could not take everything back: {_first(error)}")

    async def _start_in_order(self, plan: Plan, wanted: Wanted, say: Say) -> None:
        """Every service as soon as what it depends on is there; independent ones side by side."""
        done = {name: asyncio.Event() for name in wanted.order}
        self._waiting += 1
        try:
            async with asyncio.TaskGroup() as group:
                for name in wanted.order:
                    group.create_task(
                        self._start_service(name, plan, wanted, done, say), name=f"start-{name}"
                    )
        finally:
            self._waiting -= 1

    async def _start_service(
        self, name: str, plan: Plan, wanted: Wanted, done: dict[str, asyncio.Event], say: Say
    ) -> None:
        care = wanted.care[name]
        for needed, condition in care.depends_on:
            await done[needed].wait()
            if condition == "healthy":
                await self._until_healthy(name, needed)
        async with asyncio.TaskGroup() as group:
            for spec in plan.start:
                if spec.slot.service == name:
                    group.create_task(self._start_slot(spec, care, say), name=f"start-{spec.slot}")
        for spec in plan.replace:
            if spec.slot.service == name:
                await self._replace_slot(spec, care, say)
        done[name].set()

    async def _start_slot(self, spec: Spec, care: Care, say: Say) -> None:
        """Starts one instance and waits until it can be called."""
        self._ended.pop(spec.slot, None)
        running = await self._bring_up(spec, care, say)
        if running is not None:
            self._running[spec.slot] = running
            self._watch(running)
            say(f"{running.name} is ready ({running.child.age_s:.1f} s)")

    async def _replace_slot(self, spec: Spec, care: Care, say: Say) -> None:
        """The new instance can be called before the old one is drained, so no request fails."""
        old = self._running.get(spec.slot)
        if old is None:
            await self._start_slot(spec, care, say)
            return
        say(f"replacing {old.name}")
        if spec.gateway:
            # Two can't have one port.
            await self._stop_slot(spec.slot, -1)
            await self._start_slot(spec, care, say)
            return
        running = await self._bring_up(spec, care, say)
        if running is None:
            return
        self._running[spec.slot] = running
        self._others.add(old)
        self._watch(running)
        await old.stop(self._session, care.stop_grace_s)
        self._others.discard(old)
        say(f"{running.name} has replaced {old.name}")

    async def _bring_up(self, spec: Spec, care: Care, say: Say) -> Instance | None:
        """An instance that can be called; None for a program without ports that has done its work."""
        for attempt in range(1, START_ATTEMPTS + 1):
            async with self._limit:
                running = await self._launch(spec)
            self._remember()
            try:
                return await self._until_ready(running)
            except _EndedError as ended:
                status = running.child.returncode
                if status == 0 and not spec.ports and care.restart != "always":
                    self._ended[spec.slot] = "done"
                    say(f"{running.name} has done its work")
                    return None
                if care.restart == "no" or attempt == START_ATTEMPTS:
                    raise UpError(str(ended)) from ended
                say(f"{ended}; starting it again")
                await asyncio.sleep(RESTART_FIRST_S * attempt)
            except BaseException:
                await running.stop(self._session, 1.0, drain_s=0)
                raise
            finally:
                self._others.discard(running)
        raise AssertionError("unreachable")

    async def _launch(self, spec: Spec) -> Instance:
        """A process with the program; under explicit capture with ports that nobody else was promised."""
        explicit = self._is_explicit(spec)
        ports = spec.ports
        if spec.gateway:
            self._check_gateway(spec)
        elif explicit:
            ports = instances.application_ports(spec, self._taken_ports())
        promised = [p.app_port or p.number for p in ports] if explicit else []
        self._promised.update(promised)
        try:
            running = await instances.start(self._session, spec, ports, explicit, self._environ)
        finally:
            self._promised.difference_update(promised)
        self._others.add(running)
        return running

    def _check_gateway(self, spec: Spec) -> None:
        """Say where a gateway listens, and at once which of its ports others have. Those are no error: no
        Gateway object may ever ask for them."""
        address = dict(spec.annotations).get(annotation.GATEWAY_BIND, "")
        self._say(gateways.listening(spec.gateway, spec.ports, address))
        for port in spec.ports:
            if not instances.is_free(port.app_port, address):
                self._say(
                    f"gateway {spec.gateway}: port {port.app_port} (for {port.number}) is in use by another "
                    f"program; give 'ports: {{{port.number}: OTHER}}' in the mesh file, or free it"
                )

    async def _until_ready(self, running: Instance) -> Instance:
        """Listening on all its ports, healthy and known to the controller."""
        spec = running.spec
        limit = LISTEN_S + (spec.health.start_period_s if spec.health else 0.0)
        try:
            async with asyncio.timeout(limit):
                while True:
                    if running.child.returncode is not None:
                        said = running.last_words()
                        raise _EndedError(
                            f"service {spec.slot.service}: {running.name} {running.child.describe_end()}"
                            + (f", saying: {said}" if said else "")
                            + f"; its log is {running.log}"
                        )
                    if self._is_ready(running):
                        running.ready = True
                        return running
                    await asyncio.sleep(POLL_S / 2)
        except TimeoutError as error:
            raise UpError(
                f"service {spec.slot.service}: {running.name} {self._what_is_missing(running)} within "
                f"{limit:.0f} s; its log is {running.log}"
            ) from error

    def _is_ready(self, running: Instance) -> bool:
        seen = self._seen.get(running.workload)
        if seen is None or not seen.registered or not seen.healthy:
            return False
        if running.spec.gateway:
            # Its ports come and go with Gateway objects; its proxy was ready when the launch was over.
            return True
        if not running.ports:
            return running.child.age_s >= SETTLE_S
        return {p.number for p in running.ports} <= set(seen.listening)

    def _what_is_missing(self, running: Instance) -> str:
        seen = self._seen.get(running.workload)
        if seen is None:
            return "was not seen by the agent"
        closed = [str(p.app_port or p.number) for p in running.ports if p.number not in seen.listening]
        if closed:
            return f"did not listen on port {', '.join(closed)}"
        if not seen.healthy:
            return f"did not become healthy ({seen.health or 'no check has passed'})"
        return "was not registered at the controller"

    async def _until_healthy(self, waiting: str, needed: str) -> None:
        """A service's instances are started only when healthy, but may have become unhealthy since."""
        try:
            async with asyncio.timeout(LISTEN_S):
                while True:
                    mine = [r for s, r in self._running.items() if s.service == needed]
                    if all((w := self._seen.get(r.workload)) and w.healthy for r in mine):
                        return
                    await asyncio.sleep(POLL_S)
        except TimeoutError as error:
            message = f"service {waiting}: {needed} did not become healthy within {LISTEN_S:.0f} s"
            raise UpError(f"{message}; see 'retia logs {needed}'") from error

    async def _stop_slots(self, slots: Iterable[Slot], drain_s: float = -1) -> None:
        async with asyncio.TaskGroup() as group:
            for slot in slots:
                group.create_task(self._stop_slot(slot, drain_s), name=f"stop-{slot}")

    async def _stop_slot(self, slot: Slot, drain_s: float) -> None:
        running = self._running[slot]
        care = self._wanted.care.get(slot.service, Care())
        await running.stop(self._session, care.stop_grace_s, drain_s)
        self._running.pop(slot, None)
        self._remember()

    # -- keeping

    def _watch(self, running: Instance) -> None:
        if self._group is not None:
            self._group.create_task(self._keep(running), name=f"keep-{running.name}")

    async def _keep(self, running: Instance) -> None:
        """Waits for an instance's end; if nobody asked for it, does what its restart policy says."""
        await running.child.ended.wait()
        slot = running.spec.slot
        if running.stopping or self._running.get(slot) is not running:
            return
        said = running.last_words()
        self._say(f"{running.name} {running.child.describe_end()}" + (f", saying: {said}" if said else ""))
        self._running.pop(slot, None)
        self._ended[slot] = "done" if running.child.returncode == 0 else "failed"
        self._remember()
        if running.child.age_s >= STEADY_S:
            self._failures.pop(slot, None)
        await self._restart(slot)

    async def _restart(self, slot: Slot) -> None:
        while not self._stopping:
            spec, care = self._wanted.specs.get(slot), self._wanted.care.get(slot.service, Care())
            policy = care.restart
            if spec is None or policy == "no" or (policy == "on-failure" and self._ended.get(slot) == "done"):
                return
            failures = self._failures.get(slot, 0)
            self._failures[slot] = failures + 1
            pause = min(RESTART_FIRST_S * 2**failures, RESTART_LAST_S)
            self._say(f"starting {slot} again in {pause:g} s")
            await asyncio.sleep(pause)
            async with self._lock:
                spec = self._wanted.specs.get(slot)
                if spec is None or slot in self._running or self._stopping:
                    return
                self._restarts[slot] = self._restarts.get(slot, 0) + 1
                self._waiting += 1
                try:
                    await self._start_slot(spec, Care(restart="no"), self._say)
                    return
                except UpError as error:
                    self._ended[slot] = "failed"
                    self._say(str(error))
                finally:
                    self._waiting -= 1

    # -- small things

    def _state(self, slot: Slot) -> SlotState:
        running = self._running.get(slot)
        restarts = self._restarts.get(slot, 0)
        if running is None:
            return SlotState(slot, "", self._ended.get(slot, "starting"), restarts=restarts)
        seen = self._seen.get(running.workload)
        unhealthy = seen is not None and not seen.healthy
        state = "stopping" if running.stopping else "unhealthy" if unhealthy else "ready"
        address = running.launched.published_address
        health = seen.health if seen else ""
        return SlotState(slot, running.workload, state, running.child.pid, address, health, restarts)

    def _is_explicit(self, spec: Spec) -> bool:
        return (self._capture if spec.capture == "auto" else spec.capture) == "explicit"

    def _taken_ports(self) -> frozenset[int]:
        mine = (*self._running.values(), *self._others)
        own = {p.app_port or p.number for r in mine for p in r.ports if self._is_explicit(r.spec)}
        return frozenset(own | self._promised)

    def _workloads(self) -> dict[str, WorkloadInfo]:
        with self._session.agent(timeout_s=10.0) as agent:
            return {w.id: w for w in agent.call(Workloads(), WorkloadList).workloads}

    def _remember(self) -> None:
        known = frozenset(r.workload for r in (*self._running.values(), *self._others))
        self._memory = replace(self._memory, workloads=known)
        memory.write(self._session.home, self._memory)


class _EndedError(UpError):
    """A program ended while it was being started."""


def _first(error: BaseException) -> BaseException:
    """The error to show of a group: one of ours if there is one."""
    while isinstance(error, BaseExceptionGroup):
        ours = [e for e in error.exceptions if isinstance(e, UpError | BaseExceptionGroup)]
        error = (ours or list(error.exceptions))[0]
    return error
