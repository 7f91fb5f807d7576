"""The worker: everything of the agent but what the keeper does.

Start: take the mesh's index, open capture, take over what an earlier worker left, then serve. Idle: a
heartbeat to the controller, a look at the listeners four times a second where workloads have ports, a sample
of each proxy every few seconds. Failure: the keeper starts a new worker, which finds everything again;
Envoys and captured programs do not notice. End: only when the keeper says so are workloads deregistered and
proxies stopped; a worker that is merely told to end (SIGTERM) leaves all as it is for the next. One whose
keeper was killed goes on answering DNS and proxies, however long, but starts nothing; it gives its sockets to
the next keeper and ends.
"""

from __future__ import annotations

import asyncio
import grp
import os
import signal
import sys
import time
from pathlib import Path

import structlog

from retia import __version__
from retia.agent import envoy
from retia.agent.capture import Capture
from retia.agent.dns import DnsService, Resolver, parse_resolver
from retia.agent.health import HealthChecks
from retia.agent.host import HostModel
from retia.agent.identity import HostIdentityKeeper, IdentityUnavailable, Renewer, WorkloadKeys
from retia.agent.keeper import STATUS_WRONG_SETTINGS, KeeperError
from retia.agent.keeping import KeeperClient, ProcessEvent
from retia.agent.launch import Launcher, Peer
from retia.agent.local import Answers, LocalServer
from retia.agent.names import NameTable
from retia.agent.paths import HomeError, Paths
from retia.agent.proxies import Proxies
from retia.agent.rpc import split_address
from retia.agent.session import Session
from retia.agent.settings import Settings, SettingsError, with_default_port
from retia.agent.state import State
from retia.api.local import AgentInfo, LocalError, Probe, ProxyList, WorkloadList
from retia.identity.token import TokenError, parse_token
from retia.model.mesh import ProxyKind
from retia.node.addresses import MAX_INDEX, mesh_ports
from retia.node.meshindex import lock_name

STATUS_UNAVAILABLE = 69
"""EX_UNAVAILABLE of sysexits.h."""
TAKE_LEAVE_S = 1.0
SUCCESSOR_POLL_S = 0.05
INDEX_TRIES = 20
INDEX_POLL_S = 0.05
"""A mesh that starts tries one index after the other, and so has each for a moment: 1 s is waited."""
_log = structlog.get_logger("retia.agent")


class _Finished(Exception):  # noqa: N818
    """The worker is to end; ``orderly``: with everything that it looks after."""

    def __init__(self, orderly: bool) -> None:
        super().__init__()
        self.orderly = orderly


class Worker:
    """One run of the worker; made by :meth:`build`."""

    def __init__(
        self,
        settings: Settings,
        paths: Paths,
        index: int,
        controller: str,
        keeper: KeeperClient,
        capture: Capture,
        binary: envoy.Binary,
    ) -> None:
        self._settings = settings
        self._paths = paths
        self._index = index
        self._controller = controller
        self._keeper = keeper
        self._capture = capture
        self._state = State(paths.database)
        self._names = NameTable(self._state)
        self._identity = HostIdentityKeeper(paths, settings.host, controller, settings.join)
        self._keys = WorkloadKeys(paths)
        gateway = None
        if settings.advertise_address:
            port = settings.gateway_port or mesh_ports(index).gateway
            gateway = (settings.advertise_address, port)
        self._model = HostModel(
            settings.host,
            paths,
            self._state,
            self._names,
            self._identity,
            self._keys,
            capture,
            gateway,
            settings.advertise_address,
        )
        self._session = Session(self._model, self._identity.connect, controller)
        self._proxies = Proxies(paths, keeper, self._state, binary, self._model, lambda: self._model.hopeless)
        self._model.session = self._session
        self._model.proxies = self._proxies
        self._dns = DnsService(keeper, self._names, resolvers_of(settings))
        self._health = HealthChecks(keeper, capture)
        self._launcher = Launcher(
            self._model,
            self._proxies,
            self._dns,
            self._health,
            index,
            settings.capture,
            instance_suffix(settings.host, controller),
            settings.locality,
        )
        keeper.on_process = self._on_process
        self.ended = False
        """The end was an orderly one, of everything."""
        self._local = LocalServer(self._launcher, self._answers())

    @classmethod
    async def build(cls, settings: Settings) -> Worker:
        """Raises :class:`SettingsError`, ``KeeperError``, ``EnvoyError``, ``HomeError``."""
        paths = Paths(settings.home)
        paths.prepare()
        keeper = await KeeperClient.connect(paths.run)
        index = await take_index(keeper, paths, settings.index)
        controller = controller_address(settings, index)
        binary = await envoy.find(settings.envoy)
        _log.info("envoy", path=str(binary.path), version=binary.version)
        if binary.warning:
            _log.warning(binary.warning)
        capture = Capture(index, settings.capture)
        capture.join(await keeper.pid())
        _log.info("capture", mode="ebpf" if capture.available else "explicit", reason=capture.reason)
        return cls(settings, paths, index, controller, keeper, capture, binary)

    async def run(self) -> None:
        """Serve until the keeper goes, or says to end."""
        joined = self._identity.load()
        self._names.load()
        await self._launcher.restore()
        self._launcher.bypasses.restore()
        self._identity.patient = bool(self._model.instances)
        if not joined and not self._model.instances:
            check_token(self._settings.join)
        await self._start_gateway()
        await self._proxies.end_strangers()
        self._capture.set_names(self._names.entries(), self._model.nearest())
        orderly = False
        try:
            await self._open_socket()
            orderly = self.ended = await self._serve()
        finally:
            await self._leave(orderly)

    async def _serve(self) -> bool:
        """Run all tasks; whether the end is one for everything."""
        orderly = False
        renewer = Renewer(self._identity, self._keys, lambda: self._session.channel, self._model.renewed)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._state.run(), name="state")
                tasks.create_task(self._session.run(), name="session")
                tasks.create_task(self._launcher.listeners.run(), name="listeners")
                tasks.create_task(self._proxies.sample_all(self._model.tell_health), name="samples")
                tasks.create_task(renewer.run(), name="renewals")
                tasks.create_task(self._launcher.bypasses.run(), name="bypasses")
                tasks.create_task(self._wait_for_end(), name="end")
        except* _Finished as group:
            orderly = _first_finished(group).orderly
        return orderly

    async def _wait_for_end(self) -> None:
        """Raises :class:`_Finished`, which takes the other tasks with it."""
        terminated = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, terminated.set)
        await _any_of(terminated, self._keeper.lost, self._keeper.shutdown)
        if self._keeper.lost.is_set() and not terminated.is_set() and not self._keeper.shutdown.is_set():
            await self._hand_over(terminated)
        orderly = self._keeper.shutdown.is_set()
        if orderly:
            self._launcher.take_leave()
            await self._session.finish(TAKE_LEAVE_S)
        raise _Finished(orderly)

    async def _hand_over(self, terminated: asyncio.Event) -> None:
        """The keeper was killed: go on answering until the next one has the sockets, or the home is gone."""
        _log.error("the keeper is gone; names are answered until the next one takes over")
        self._health.close()  # checks need a keeper; what they found last stays
        await self._local.close()
        while self._paths.run.exists() and not terminated.is_set():
            try:
                await self._keeper.hand_over(self._paths.run)
            except (KeeperError, OSError):
                await asyncio.sleep(SUCCESSOR_POLL_S)
            else:
                return

    async def _leave(self, orderly: bool) -> None:
        await self._local.close()
        self._health.close()
        if orderly:
            _log.info("ending, with all proxies")
            await self._launcher.end_all()
        self._launcher.processes.close()
        await self._proxies.let_go()
        self._dns.let_go()
        self._state.write_now()
        self._state.close()
        self._capture.close(teardown=orderly)
        self._keeper.close()

    async def _start_gateway(self) -> None:
        """The host gateway, where other hosts reach this one."""
        if not self._settings.advertise_address:
            return
        proxy = f"host/{self._settings.host}"
        await self._proxies.adopt(proxy, ProxyKind.HOST_GATEWAY, 0, "")

    async def _open_socket(self) -> None:
        group = self._settings.socket_group
        path = self._paths.socket
        await self._local.start(await self._keeper.open_unix(path, 0o660 if group else 0o600))
        if group:
            number = group_number(group)
            os.chown(path, -1, number)
            for folder in (self._paths.home, self._paths.run):
                os.chown(folder, -1, number)
                folder.chmod(0o710)

    def _on_process(self, event: ProcessEvent) -> None:
        self._proxies.on_process(event)
        self._health.on_process(event)

    # Answers on the local socket

    def _answers(self) -> Answers:
        return Answers(
            self._workloads,
            self._proxy_list,
            self._model.ask,
            self._info,
            self._shutdown,
            self._may_use,
        )

    def _workloads(self) -> WorkloadList:
        found = []
        for instance in self._model.instances.values():
            pair = self._keys.get(instance.id)
            registered = instance.known and not self._model.away
            expiry = pair.expiry if pair else 0.0
            info = instance.info(instance.id, expiry, registered)
            bypass = self._launcher.bypasses.get(instance.id)
            if bypass is not None:
                info = info.model_copy(update={"bypass_until": bypass.until, "bypass_reason": bypass.reason})
            found.append(info)
        return WorkloadList(workloads=tuple(found))

    async def _proxy_list(self) -> ProxyList:
        running = self._proxies.all()
        await asyncio.gather(*(self._proxies.sample(r) for r in running))
        return ProxyList(proxies=tuple(r.info() for r in running))

    async def _info(self) -> AgentInfo:
        gateway = self._model.gateway or ("", 0)
        return AgentInfo(
            software=f"retia-agent/{__version__}",
            host=self._settings.host,
            index=self._index,
            pid=os.getpid(),
            keeper_pid=await self._keeper.pid(),
            controller=self._controller,
            connected=not self._model.away,
            disconnected_s=time.monotonic() - self._session.since if self._model.away else 0.0,
            last_error=self._session.last_error,
            envoy_path=str(self._proxies.binary.path),
            envoy_version=self._proxies.binary.version,
            capture="ebpf" if self._capture.available else "explicit",
            reason=self._capture.reason,
            probes=tuple(Probe(name=p.name, ok=p.ok, reason=p.reason) for p in self._capture.probes),
            trust_domain=self._identity.trust_domain,
            host_certificate_expiry=self._identity.expiry,
            clock_skew_s=self._identity.skew_s,
            gateway_address=gateway[0],
            gateway_port=gateway[1],
            names=len(self._names),
            state_error=self._state.problem,
        )

    def _shutdown(self) -> None:
        async def end() -> None:
            await self._keeper.end()

        self._ending = asyncio.create_task(end(), name="shutdown")

    def _may_use(self, peer: Peer) -> bool:
        if peer.uid in (0, os.geteuid()):
            return True
        group = self._settings.socket_group
        # The socket's mode lets in whom it may; the kernel has checked that already.
        return bool(group)


async def _any_of(*events: asyncio.Event) -> None:
    waits = {asyncio.create_task(event.wait(), name="end-wait") for event in events}
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


def _first_finished(group: BaseExceptionGroup[_Finished]) -> _Finished:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, _Finished)
    return error


async def take_index(keeper: KeeperClient, paths: Paths, wanted: int | None) -> int:
    """The mesh's index on this host, its lock held by the keeper.

    The wanted one; otherwise the one that ``run/index`` names; otherwise the first free one. Raises
    :class:`SettingsError`.
    """
    if wanted is None:
        wanted = _read_index(paths.index)
    candidates = range(MAX_INDEX + 1) if wanted is None else (wanted,)
    for index in candidates:
        if not await _take_lock(keeper, index, INDEX_TRIES if index == wanted else 1):
            continue
        if _read_index(paths.index) != index:
            paths.index.write_text(f"{index}\n", encoding="ascii")
        return index
    if wanted is None:
        raise SettingsError(f"all {MAX_INDEX + 1} mesh indexes of this host are taken; stop a mesh first")
    raise SettingsError(f"mesh index {wanted} is taken by another mesh on this host; choose another --index")


async def _take_lock(keeper: KeeperClient, index: int, tries: int) -> bool:
    for left in reversed(range(tries)):
        try:
            await keeper.take_lock(lock_name(index).removeprefix("\0"))
        except KeeperError:
            if keeper.lost.is_set():
                raise
            if left:
                await asyncio.sleep(INDEX_POLL_S)
        else:
            return True
    return False


def _read_index(path: Path) -> int | None:
    try:
        value = int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    return value if 0 <= value <= MAX_INDEX else None


def controller_address(settings: Settings, index: int) -> str:
    """HOST:PORT of the controller. Raises :class:`SettingsError`."""
    port = mesh_ports(index).control
    address = with_default_port(settings.controller or "127.0.0.1", port)
    try:
        split_address(address)
    except ValueError as error:
        raise SettingsError(f"--controller: {error}") from error
    return address


def instance_suffix(host: str, controller: str) -> str:
    """What sets the generated names of this host's instances apart from other hosts': nothing on the
    controller's own host, ``.<host>`` elsewhere."""
    if split_address(controller)[0] in ("127.0.0.1", "::1", "localhost"):
        return ""
    return "." + "".join(c if c.isalnum() or c == "-" else "-" for c in host.lower()).strip("-")


def resolvers_of(settings: Settings) -> tuple[Resolver, ...]:
    try:
        return tuple(parse_resolver(text) for text in settings.resolvers)
    except ValueError as error:
        raise SettingsError(f"--resolver {' '.join(settings.resolvers)}: {error}") from error


def group_number(name: str) -> int:
    """Raises :class:`SettingsError`."""
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError as error:
        raise SettingsError(f"--socket-group {name}: there is no such group") from error


def check_token(text: str) -> None:
    """Raises :class:`IdentityUnavailable` where no join is possible with it."""
    if not text:
        raise IdentityUnavailable(
            "this host has not joined a mesh: give --join TOKEN, "
            "from 'retia token create' on the controller's host"
        )
    try:
        parse_token(text)
    except TokenError as error:
        raise IdentityUnavailable(str(error)) from error


async def work(settings: Settings) -> int:
    """Run the worker; the exit status. What a person must change ends the agent; the rest is tried again."""
    try:
        worker = await Worker.build(settings)
        await worker.run()
    except BaseExceptionGroup as group:
        wrong = group.subgroup(IdentityUnavailable)
        if wrong is None:
            raise
        return _complain(_leaf(wrong))
    except (SettingsError, HomeError, envoy.EnvoyError, IdentityUnavailable) as error:
        return _complain(error)
    except (KeeperError, LocalError, OSError) as error:
        _complain(error)
        return STATUS_UNAVAILABLE
    return 0 if worker.ended else STATUS_UNAVAILABLE


def _leaf(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _complain(error: BaseException) -> int:
    sys.stderr.write(f"retia agent: {error}\n")
    return STATUS_WRONG_SETTINGS
