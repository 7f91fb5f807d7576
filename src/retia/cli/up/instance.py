"""One running instance: from a spec to a process in the mesh, and to its end.

The order matters: a shim process is made first, the agent takes that process in (addresses, proxy, cgroup),
and only then does the shim become the program. So the program never sees a moment outside the mesh, and when
anything fails before that, there is no program to take back.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from retia.api.local import Done, Launch, Launched, LocalError, PortSpec, Stop, UpstreamSpec
from retia.cli.session import Session
from retia.cli.tail import last_lines
from retia.cli.up import expressions
from retia.cli.up.child import Child
from retia.cli.up.errors import UpError
from retia.cli.up.spec import Spec

SHIM = Path(__file__).with_name("shim.py")

_EXEC_S = 10.0


@dataclass(slots=True, eq=False)
class Instance:
    """A program in the mesh. ``launched`` says under which name the agent knows it."""

    spec: Spec
    child: Child
    launched: Launched
    log: Path
    ports: tuple[PortSpec, ...] = field(default=())
    """With the application ports that were really given to it."""
    ready: bool = False
    stopping: bool = False

    @property
    def workload(self) -> str:
        return self.launched.workload

    @property
    def name(self) -> str:
        """For logs: the workload's name without its namespace where that is ``default``."""
        return self.workload.removeprefix("default/")

    def last_words(self) -> str:
        lines = [line.strip() for line in last_lines(self.log, 20) if line.strip()]
        return lines[-1][:300] if lines else ""

    async def stop(self, session: Session, grace_s: float, drain_s: float = -1) -> None:
        """Drains it, ends it and its proxy, and returns when all is gone. Never raises for a dead agent.

        ``drain_s`` is how long callers get to notice; -1: the agent's default.
        """
        self.stopping = True
        request = Stop(workload=self.workload, grace_s=grace_s, drain_s=drain_s)
        with contextlib.suppress(LocalError):
            await asyncio.to_thread(call_stop, session, request, grace_s + 15.0)
        if not await self.child.wait(0.5):
            await self.child.end(grace_s)
        self.child.signal_group(signal.SIGKILL)

    def kill(self) -> None:
        self.stopping = True
        self.child.signal(signal.SIGKILL)
        self.child.signal_group(signal.SIGKILL)


async def start(
    session: Session, spec: Spec, ports: tuple[PortSpec, ...], explicit: bool, environ: Mapping[str, str]
) -> Instance:
    """Starts ``spec`` and returns once its program runs (it may not listen yet).

    ``explicit`` says whether it will get explicit capture, ``ports`` are then from
    :func:`application_ports`. Raises :class:`UpError`; nothing of it is left then.
    """
    ours, theirs = socket.socketpair()
    try:
        process = spawn_shim(theirs)
    except OSError as error:
        ours.close()
        raise UpError(f"service {spec.slot.service}: cannot start a process: {error.strerror}") from error
    finally:
        theirs.close()
    child = Child(process, str(spec.slot))
    launched: Launched | None = None
    try:
        launched = await asyncio.to_thread(_launch, session, spec, ports, explicit, child.pid)
        log = (
            session.log / "workloads" / f"{launched.workload.removeprefix('default/').replace('/', '.')}.log"
        )
        log.parent.mkdir(mode=0o700, exist_ok=True)
        if log.exists():
            log.rename(log.with_suffix(".log.1"))
        order = _order(spec, launched, ports, log, environ)
        await asyncio.to_thread(_let_go, ours, order, spec)
    except BaseException:
        child.signal(signal.SIGKILL)
        if launched is not None:
            with contextlib.suppress(LocalError):
                request = Stop(workload=launched.workload, drain_s=0, grace_s=0)
                await asyncio.to_thread(call_stop, session, request, 15.0)
        await child.wait(5.0)
        raise
    finally:
        ours.close()
    return Instance(spec, child, launched, log, ports)


def spawn_shim(control: socket.socket) -> subprocess.Popen[bytes]:
    """A process that waits on ``control`` for what to become, and ends if that closes."""
    return subprocess.Popen(
        [sys.executable, "-I", "-S", str(SHIM), str(control.fileno())],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=(control.fileno(),),
        start_new_session=True,
        cwd="/",
    )


def _launch(session: Session, spec: Spec, ports: tuple[PortSpec, ...], explicit: bool, pid: int) -> Launched:
    slot = spec.slot
    request = Launch(
        service=slot.service,
        namespace=slot.namespace,
        service_account=spec.service_account,
        ports=ports,
        labels=dict(spec.labels),
        annotations=dict(spec.annotations),
        upstreams=_upstreams(spec) if explicit else (),
        capture=spec.capture,  # type: ignore[arg-type]  # one of the literals, checked by the mesh file
        health=spec.health,
        pid=pid,
        command=spec.command,
        cwd=spec.cwd,
    )
    try:
        with session.agent(timeout_s=60.0) as agent:
            return agent.call(request, Launched)
    except LocalError as error:
        raise UpError(f"service {slot.service}: the agent refused {slot}: {error}") from error


def _upstreams(spec: Spec) -> tuple[UpstreamSpec, ...]:
    """Those of the mesh file, and what ``${upstream:...}`` asks for beside them."""
    listed = {(u.host, u.port) for u in spec.upstreams}
    used = expressions.find((*spec.command, *(value for _, value in spec.environment)))
    added = tuple(UpstreamSpec(host=h, port=p) for h, p in used.upstreams if (h, p) not in listed)
    return spec.upstreams + added


def _order(
    spec: Spec, launched: Launched, ports: tuple[PortSpec, ...], log: Path, environ: Mapping[str, str]
) -> dict[str, object]:
    """What the shim is told: the program with everything filled in."""
    # The agent answers in the order asked, with names in full.
    asked = _upstreams(spec) if launched.capture == "explicit" else ()
    local = {(a.host, a.port): u.local_port for a, u in zip(asked, launched.upstreams, strict=False)}
    own = {p.number: p.app_port or p.number for p in ports}

    def upstream(host: str, port: int) -> str:
        number = local.get((host, port))
        return f"127.0.0.1:{number}" if launched.capture == "explicit" and number else f"{host}:{port}"

    def own_port(port: int) -> str:
        return str(own[port])

    def fill(text: str) -> str:
        return expressions.fill_late(text, upstream, own_port)

    environment = dict(environ)
    environment.update({key: fill(value) for key, value in spec.environment})
    for key, value in launched.env.items():
        if value:
            environment[key] = value
        else:
            environment.pop(key, None)
    environment["RETIA_WORKLOAD"] = launched.workload
    environment["RETIA_SERVICE"] = spec.slot.service
    environment["RETIA_VERSION"] = spec.slot.version
    argv = [fill(word) for word in spec.command]
    program = argv[0] if "/" in argv[0] else shutil.which(argv[0], path=environment.get("PATH", os.defpath))
    user = pwd.getpwnam(spec.user) if spec.user and os.geteuid() == 0 else None
    return {
        "argv": [program or argv[0], *argv[1:]],
        "env": environment,
        "cwd": spec.cwd,
        "log": str(log),
        "user": spec.user,
        "uid": user.pw_uid if user else -1,
        "gid": user.pw_gid if user else -1,
    }


def _let_go(control: socket.socket, order: dict[str, object], spec: Spec) -> None:
    """Tells the shim to become the program; blocks until it has, or has failed."""
    control.settimeout(_EXEC_S)
    try:
        control.sendall(json.dumps(order).encode() + b"\n")
        with control.makefile("rb") as reader:
            answer = reader.readline()
    except OSError as error:
        raise UpError(f"service {spec.slot.service}: its process ended before the program began") from error
    if answer:
        reason = json.loads(answer).get("error", "")
        raise UpError(f"service {spec.slot.service}: {reason}; check its command in the mesh file")


def application_ports(spec: Spec, taken: frozenset[int]) -> tuple[PortSpec, ...]:
    """Ports under explicit capture, where programs share this machine's ports.

    A program that takes its port from ``${port:...}`` gets a free one, always: its proxy listens on the
    service's port of a loopback address, so a program that listens on every address could not have that.
    Another program has the port that it says, or it is an error if somebody else listens there.
    """
    used = expressions.find((*spec.command, *(value for _, value in spec.environment)))
    ports = []
    for port in spec.ports:
        number = port.app_port or port.number
        if port.number in used.ports:
            number = _free_port()
        elif number in taken or not is_free(number):
            who = "another program of this mesh" if number in taken else "another program on this machine"
            raise UpError(
                f"service {spec.slot.service}: 127.0.0.1:{number} is in use by {who}, and explicit capture "
                f"cannot share ports; let the program listen on ${{port:{port.number}}}, or free the port"
            )
        ports.append(port.model_copy(update={"app_port": number}))
    return tuple(ports)


def is_free(port: int, address: str = "127.0.0.1") -> bool:
    """Whether a program could listen there now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except PermissionError:
            return True  # the program will say so itself, with its own privileges
        except OSError:
            return False
    return True


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def call_stop(session: Session, request: Stop, timeout_s: float) -> None:
    """Asks the agent to stop a workload; blocks until all of it is gone."""
    with session.agent(timeout_s=timeout_s) as agent:
        agent.call(request, Done)
