"""Hosts, their workloads and their proxies, as their agents report them.

What an agent says of its own host is taken as it is; what it says of another's workloads is refused.
Workloads go into the facts at once and stay there for as long as the host's lease
(:mod:`retia.control.leases`) runs or is held; a stopped workload leaves at once. All is remembered in the
store, so that a restarted controller knows every endpoint before the first agent is back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import structlog

from retia._generated import agent_pb2 as pb
from retia.aio.clock import Clock
from retia.control.convert import BadReport, Message, proxy_of, workload_of
from retia.control.leases import Leases
from retia.control.remembered import Remembered
from retia.model.ids import HostId, WorkloadId
from retia.model.mesh import Proxy, Workload
from retia.model.resource import Name
from retia.policy.facts import FactBase

_log = structlog.get_logger("retia.control.registry")


@dataclass(slots=True)
class ProxyState:
    """A proxy, and what it says of itself."""

    proxy: Proxy
    message: Message
    acked: dict[Name, str] = field(default_factory=dict)
    nacked: dict[Name, tuple[str, str]] = field(default_factory=dict)
    """Version and error."""
    health: Message = field(default_factory=pb.ProxyHealth)


@dataclass(slots=True)
class HostState:
    """A host, and what its agent says."""

    hello: Message
    workloads: dict[WorkloadId, Workload] = field(default_factory=dict)
    proxies: dict[str, ProxyState] = field(default_factory=dict)
    connected: bool = False
    last_seen: float = 0.0
    """Seconds since 1970."""
    clock_skew_s: float = 0.0
    certificate_expiry: float = 0.0

    @property
    def id(self) -> HostId:
        return HostId(self.hello.host)


class Registry:
    """``touch`` is called when facts were put."""

    def __init__(
        self,
        facts: FactBase,
        remembered: Remembered,
        clock: Clock,
        lease_s: float,
        trust_domain: str,
        touch: Callable[[], None],
    ) -> None:
        self.hosts: dict[str, HostState] = {}
        self.leases = Leases(lease_s, clock.monotonic())
        self.on_proxy: list[Callable[[str, str, Proxy | None], None]] = []
        """Called with host, proxy id and the proxy as it is now (``None``: gone)."""
        self._facts = facts
        self._remembered = remembered
        self._clock = clock
        self._trust_domain = trust_domain
        self._touch = touch
        self._owner: dict[WorkloadId, str] = {}
        self._proxy_owner: dict[str, str] = {}
        self._awaited: dict[WorkloadId, asyncio.Event] = {}

    # -- looking up ----------------------------------------------------------------------------------------

    def workload(self, workload: str) -> Workload | None:
        host = self.hosts.get(self._owner.get(WorkloadId(workload), ""))
        return host.workloads.get(WorkloadId(workload)) if host else None

    async def registered(self, workload: str, timeout_s: float) -> bool:
        """Whether a workload is registered, or will be within ``timeout_s``."""
        if self.workload(workload) is not None:
            return True
        arrived = self._awaited.setdefault(WorkloadId(workload), asyncio.Event())
        try:
            async with asyncio.timeout(timeout_s):
                await arrived.wait()
        except TimeoutError:
            return False
        finally:
            self._awaited.pop(WorkloadId(workload), None)
        return True

    def proxy(self, proxy: str) -> tuple[HostState, ProxyState] | None:
        """A proxy by its id, with its host."""
        host = self.hosts.get(self._proxy_owner.get(proxy, ""))
        if host is None or proxy not in host.proxies:
            return None
        return host, host.proxies[proxy]

    # -- at start ------------------------------------------------------------------------------------------

    def recall(self) -> None:
        """Take what the store remembers; those hosts have one period to come back."""
        for hello in self._remembered.hosts():
            self.hosts[hello.host] = HostState(hello)
            self.leases.remember(hello.host)
        found: list[Workload] = []
        for host, message in self._remembered.workloads():
            try:
                workload = workload_of(message, HostId(host))
            except BadReport as error:
                _log.warning("a remembered workload is passed over", reason=str(error))
                continue
            state = self.hosts.get(host)
            if state is not None:
                state.workloads[workload.id] = workload
                self._owner[workload.id] = host
                found.append(workload)
        self._facts.put_workloads(found)
        self._touch()

    # -- what agents say -----------------------------------------------------------------------------------

    def hello(self, message: Message) -> list[str]:
        """A host begins a session: what it doesn't name is gone. Returns what was refused, as sentences."""
        state = self.hosts.get(message.host)
        if state is None:
            state = self.hosts[message.host] = HostState(message)
        else:
            state.hello = message
        state.connected = True
        if message.agent_time:
            state.clock_skew_s = message.agent_time - self._clock.now()
        self.seen(message.host)
        self._remembered.put_host(message)
        refused: list[str] = []
        named = {w.id for w in message.workloads}
        for gone in [w for w in state.workloads if w not in named]:
            self.remove_workload(message.host, gone)
        for workload in message.workloads:
            self._try(refused, lambda w=workload: self.put_workload(message.host, w))  # type: ignore[misc]
        for gone_proxy in [p for p in state.proxies if p not in {p.id for p in message.proxies}]:
            self.remove_proxy(message.host, gone_proxy)
        for proxy in message.proxies:
            self._try(refused, lambda p=proxy: self.put_proxy(message.host, p))  # type: ignore[misc]
        return refused

    def seen(self, host: str) -> None:
        """The host's agent has said something."""
        self.leases.renew(host, self._clock.monotonic())
        self.hosts[host].last_seen = self._clock.now()

    def gone_silent(self, host: str) -> None:
        """The session is over; the lease runs on."""
        if host in self.hosts:
            self.hosts[host].connected = False

    def put_workload(self, host: str, message: Message) -> None:
        """Raises :class:`BadReport`."""
        state = self.hosts[host]
        workload = workload_of(message, HostId(host))
        owner = self._owner.get(workload.id)
        if owner not in (None, host) and self.leases.state(owner or "", self._clock.monotonic()) == "valid":
            raise BadReport(
                f"workload {workload.id!r} of host {host}: host {owner} has a workload of that name; choose "
                "another"
            )
        if owner not in (None, host):
            self.remove_workload(owner or "", workload.id)
        if state.workloads.get(workload.id) == workload:
            return
        state.workloads[workload.id] = workload
        self._owner[workload.id] = host
        self._remembered.put_workload(host, message)
        self._facts.put_workloads([workload])
        self._refresh_proxies(state, workload.id)
        self._touch()
        if workload.id in self._awaited:
            self._awaited[workload.id].set()

    def remove_workload(self, host: str, workload: str) -> None:
        """The program has ended."""
        state = self.hosts.get(host)
        key = WorkloadId(workload)
        if state is None or state.workloads.pop(key, None) is None:
            return
        self._owner.pop(key, None)
        self._remembered.remove_workload(host, workload)
        self._facts.put_workloads((), removed=[key])
        self._touch()

    def put_proxy(self, host: str, message: Message) -> None:
        """Raises :class:`BadReport`."""
        state = self.hosts[host]
        workload = state.workloads.get(WorkloadId(message.workload))
        proxy = proxy_of(message, workload, state.hello, self._trust_domain)
        other = self.proxy(message.id)
        if other is not None and other[0].id != host:
            if self.leases.state(other[0].id, self._clock.monotonic()) == "valid":
                raise BadReport(f"proxy {message.id!r} of host {host}: host {other[0].id} has one of that id")
            self.remove_proxy(other[0].id, message.id)
        self._proxy_owner[message.id] = host
        known = state.proxies.get(message.id)
        if known is None:
            state.proxies[message.id] = ProxyState(proxy, message)
        else:
            known.proxy, known.message = proxy, message
        self._tell(host, message.id, proxy)

    def remove_proxy(self, host: str, proxy: str) -> None:
        state = self.hosts.get(host)
        if state is not None and state.proxies.pop(proxy, None) is not None:
            self._proxy_owner.pop(proxy, None)
            self._tell(host, proxy, None)

    # -- leases --------------------------------------------------------------------------------------------

    def sweep(self) -> list[str]:
        """Withdraw the hosts that are lost; which they are."""
        lost = self.leases.sweep(self._clock.monotonic())
        for host in lost:
            self._lose(host)
        return lost

    def _lose(self, host: str) -> None:
        state = self.hosts.pop(host, None)
        if state is None:
            return
        _log.warning("a host is lost", host=host, workloads=len(state.workloads))
        for proxy in list(state.proxies):
            self._proxy_owner.pop(proxy, None)
            self._tell(host, proxy, None)
        for workload in state.workloads:
            self._owner.pop(workload, None)
            self._remembered.remove_workload(host, workload)
        self._remembered.remove_host(host)
        self._facts.put_workloads((), removed=state.workloads)
        self._touch()

    # -- helpers -------------------------------------------------------------------------------------------

    def _refresh_proxies(self, state: HostState, workload: WorkloadId) -> None:
        """The workload's proxies are made of what is known of the workload."""
        for known in [p for p in state.proxies.values() if p.message.workload == workload]:
            self.put_proxy(state.id, known.message)

    def _tell(self, host: str, proxy_id: str, proxy: Proxy | None) -> None:
        for listener in self.on_proxy:
            listener(host, proxy_id, proxy)

    @staticmethod
    def _try(refused: list[str], action: Callable[[], None]) -> None:
        try:
            action()
        except BadReport as error:
            refused.append(str(error))

    def all_proxies(self) -> Iterable[tuple[HostState, ProxyState]]:
        return ((host, proxy) for host in self.hosts.values() for proxy in host.proxies.values())
