"""Controller and agent as children of the supervisor.

Those of this RETIA_HOME that run already are used and left alone at the end, unless they are what an earlier
supervisor left behind. Those that were started here are started again, with growing pauses, when they end by
themselves: the data plane goes on meanwhile, so nothing else needs to happen.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from retia.api.client import ClientError
from retia.api.local import AgentInfo, Done, Info, LocalError, Shutdown
from retia.api.schema import StatusInfo, TokenRequest
from retia.cli import processes
from retia.cli.session import Session
from retia.cli.tail import last_lines
from retia.cli.up import memory, stopping
from retia.cli.up.child import Child
from retia.cli.up.errors import UpError
from retia.cli.up.instance import is_free
from retia.cli.up.settings import PlatformSettings
from retia.node.addresses import MAX_INDEX, mesh_ports
from retia.node.meshindex import IndexTaken, MeshLock

START_S = 20.0
"""The longest that controller or agent may take until they answer."""
POLL_S = 0.05
INDEX_ATTEMPTS = 3
_PAUSES_S = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_STEADY_S = 60.0

T = TypeVar("T")


@dataclass(slots=True)
class Platform:
    session: Session
    settings: PlatformSettings
    say: Callable[[str], None]
    info: AgentInfo | None = None
    index: int = 0
    _lock: MeshLock | None = None
    _children: dict[str, Child] = field(default_factory=dict)
    _failures: dict[str, int] = field(default_factory=dict)
    _inherited: frozenset[str] = frozenset()
    _stopping: bool = False

    async def start(self) -> AgentInfo:
        """Both are up and connected when this returns; :class:`UpError` where one is not.

        The mesh's index is held here until the agent's keeper takes it over. Where another mesh of this host
        gets in between, everything is started once more with another index.
        """
        self.session.prepare()
        for _ in range(INDEX_ATTEMPTS):
            try:
                return await self._start_once()
            except UpError:
                agent = self._children.get("agent")
                if agent is None or agent.returncode is None or not _is_taken(self.index):
                    raise
                self.say(f"another mesh took index {self.index} meanwhile; starting with another one")
                await self.stop()
                self._stopping = False
        raise UpError("other meshes of this host kept taking the index; start one mesh after the other")

    async def _start_once(self) -> AgentInfo:
        try:
            return await self._start()
        finally:
            self._token_file.unlink(missing_ok=True)

    async def _start(self) -> AgentInfo:
        controller = await asyncio.to_thread(self._controller_status)
        agent = await asyncio.to_thread(self._agent_info)
        self._inherit(controller is not None, agent is not None)
        self._choose_index(controller, agent)
        if controller is None:
            self.say("starting the controller")
            self._spawn("controller")
            controller = await self._controller_ready()
        if agent is None:
            self.say("starting the agent")
            join = await asyncio.to_thread(self._join_arguments)
            self._release_index()
            self._spawn("agent", join)
        self._release_index()
        self.info = await self._agent_ready()
        return self.info

    async def watch(self) -> None:
        """Starts again what ended by itself, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for name in self._children:
                group.create_task(self._keep(name), name=f"keep-{name}")

    async def stop(self) -> list[str]:
        """Ends what was started here: first the agent with its proxies, then the controller."""
        ended = sorted(self._inherited | set(self._children))
        self._stopping = True
        self._release_index()
        agent = self._children.get("agent")
        if agent is not None and agent.returncode is None:
            self.say("stopping the agent")
            await asyncio.to_thread(self._ask_agent_to_end)
            if not await agent.wait(15.0):
                await agent.end(5.0)
        elif "agent" in self._inherited:
            await asyncio.to_thread(stopping.stop_agent, self.session, self.say)
        controller = self._children.get("controller")
        if controller is not None and controller.returncode is None:
            self.say("stopping the controller")
            await controller.end(10.0)
        elif "controller" in self._inherited:
            await asyncio.to_thread(stopping.stop_controller, self.session, self.say)
        self._children.clear()
        self._inherited = frozenset()
        self._remember()
        return ended

    def kill(self) -> None:
        """At once, for a second Ctrl-C: nobody waits for anything."""
        self._stopping = True
        for child in self._children.values():
            child.signal(signal.SIGTERM)

    # -- starting

    def _inherit(self, controller: bool, agent: bool) -> None:
        """What runs, and was started by a supervisor that is no more, is ours to end."""
        left = memory.read(self.session.home).platform
        running = {name for name, runs in (("controller", controller), ("agent", agent)) if runs}
        self._inherited = left & running
        self._remember()

    def _remember(self) -> None:
        known = frozenset(self._inherited | set(self._children))
        memory.write(self.session.home, replace(memory.read(self.session.home), platform=known))

    def _choose_index(self, controller: StatusInfo | None, agent: AgentInfo | None) -> None:
        if agent is not None:
            self.index = agent.index
            return
        if controller is not None:
            self.index = controller.mesh_index
            return
        before = _read_index(self.session.index_file)
        if before is not None and _worker_lives(self.session.run):
            self.index = before
            return
        candidates = [*([] if before is None else [before]), *range(MAX_INDEX + 1)]
        self._lock = next((lock for index in candidates if (lock := _take(index)) is not None), None)
        if self._lock is None:
            raise UpError(str(IndexTaken(None)))
        self.index = self._lock.index
        self.session.index_file.write_text(f"{self.index}\n")

    def _release_index(self) -> None:
        """The agent's keeper takes the index over; it cannot while it is held here."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _spawn(self, name: str, more: tuple[str, ...] = ()) -> None:
        module = processes.CONTROLLER if name == "controller" else processes.AGENT
        arguments = ["--home", str(self.session.home), "--index", str(self.index)]
        arguments += more
        arguments += self._options(name)
        log = self.session.log / f"{name}.log"
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        self._children[name] = Child.start(processes.argv(module, arguments), log, environment, name)
        self._remember()

    def _options(self, name: str) -> list[str]:
        """With an advertised address the controller takes agents of other hosts too, and the agent runs a
        gateway for theirs."""
        address = self.settings.advertise_address
        given = {"--advertise-address": address}
        if name == "agent":
            given.update({"--envoy": self.settings.envoy, "--capture": self.settings.capture})
        elif address:
            given["--listen"] = "::" if ":" in address else "0.0.0.0"
        return [word for option, value in given.items() if value for word in (option, value)]

    @property
    def _token_file(self) -> Path:
        return self.session.run / "join-token"

    def _join_arguments(self) -> tuple[str, ...]:
        """A fresh token, in a file until it is used: everybody can read the arguments of a process."""
        try:
            with self.session.client() as client:
                token = client.create_token(TokenRequest(ttl_s=300))
        except ClientError as error:
            raise UpError(f"cannot make a join token for the agent: {error}") from error
        self._token_file.unlink(missing_ok=True)
        descriptor = os.open(self._token_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(f"{token.token}\n")
        return ("--join-file", str(self._token_file))

    async def _controller_ready(self) -> StatusInfo:
        async def poll() -> StatusInfo | None:
            status = await asyncio.to_thread(self._controller_status)
            return status if status is not None and status.ready else None

        return await self._until_ready("controller", poll, "answer on its socket")

    async def _agent_ready(self) -> AgentInfo:
        async def poll() -> AgentInfo | None:
            info = await asyncio.to_thread(self._agent_info)
            return info if info is not None and info.connected else None

        return await self._until_ready("agent", poll, "connect to the controller")

    async def _until_ready(self, name: str, poll: Callable[[], Awaitable[T | None]], what: str) -> T:
        log = self.session.log / f"{name}.log"
        try:
            async with asyncio.timeout(START_S):
                while True:
                    child = self._children.get(name)
                    if child is not None and child.returncode is not None:
                        said = _last_words(log)
                        raise UpError(f"the {name} {child.describe_end()}{said}; its log is {log}")
                    found = await poll()
                    if found is not None:
                        return found
                    await asyncio.sleep(POLL_S)
        except TimeoutError as error:
            said = _last_words(log)
            raise UpError(
                f"the {name} did not {what} within {START_S:.0f} s{said}; its log is {log}"
            ) from error

    # -- asking

    def _controller_status(self) -> StatusInfo | None:
        if not self.session.api_socket.exists():
            return None
        try:
            with self.session.client() as client:
                return client.status()
        except ClientError as error:
            if error.code in ("no_controller", "unavailable"):
                return None
            raise UpError(str(error)) from error

    def _agent_info(self) -> AgentInfo | None:
        if not self.session.agent_socket.exists():
            return None
        try:
            with self.session.agent(timeout_s=5.0) as agent:
                return agent.call(Info(), AgentInfo)
        except LocalError as error:
            if error.code in ("unreachable", "timeout"):
                return None
            raise UpError(str(error)) from error

    def _ask_agent_to_end(self) -> None:
        try:
            with self.session.agent(timeout_s=5.0) as agent:
                agent.call(Shutdown(), Done)
        except LocalError:
            self._children["agent"].signal(signal.SIGTERM)

    # -- keeping

    async def _keep(self, name: str) -> None:
        while True:
            child = self._children[name]
            await child.ended.wait()
            if self._stopping:
                return
            steady = child.age_s >= _STEADY_S
            failures = 0 if steady else self._failures.get(name, 0)
            self._failures[name] = failures + 1
            pause = _PAUSES_S[min(failures, len(_PAUSES_S) - 1)]
            self.say(f"the {name} {child.describe_end()}; starting it again in {pause:g} s")
            await asyncio.sleep(pause)
            if self._stopping:
                return
            self._spawn(name)


def _last_words(log: Path) -> str:
    """The last line with words in it: the frames around a traceback have none."""
    lines = [line.strip(" |+-") for line in last_lines(log, 5)]
    words = [line for line in lines if line]
    return f": {words[-1][:300]}" if words else ""


def _take(index: int) -> MeshLock | None:
    """The index, if no other mesh has it: neither its lock nor, between a controller's start and its agent's,
    its first port."""
    try:
        lock = MeshLock.take(index)
    except IndexTaken:
        return None
    if is_free(mesh_ports(index).control):
        return lock
    lock.close()
    return None


def _worker_lives(run: Path) -> bool:
    """Whether the worker of an agent whose keeper was killed goes on; it has this mesh's index."""
    try:
        worker = json.loads((run / "keeper.json").read_text())["worker"]
        stat = Path(f"/proc/{int(worker['pid'])}/stat").read_text()
        return int(stat.rpartition(")")[2].split()[19]) == int(worker["stamp"])
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return False


def _is_taken(index: int) -> bool:
    try:
        MeshLock.take(index).close()
    except IndexTaken:
        return True
    return False


def _read_index(path: Path) -> int | None:
    try:
        index = int(path.read_text().strip())
    except (OSError, ValueError):
        return None
    return index if 0 <= index <= 15 else None
