"""``retia down``: through the supervisor, or by hand where it was killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

from retia.api.client import ClientError
from retia.api.local import AgentInfo, Done, Info, LocalError, Shutdown, Stop, WorkloadList, Workloads
from retia.cli import processes
from retia.cli.errors import CliError
from retia.cli.session import Session
from retia.cli.up import memory, talk

END_S = 120.0

Say = Callable[[str], None]


def stop(session: Session, say: Say) -> list[str]:
    """Stops what ``retia up`` started for this RETIA_HOME and returns what that was.

    A controller or an agent that somebody started by hand is left to them.
    """
    supervisor = talk.find(session.up_socket)
    if supervisor is not None:
        return _through_supervisor(supervisor, say)
    left = memory.read(session.home)
    stopped = _leftover_workloads(session, left, say)
    if "agent" in left.platform:
        stopped += stop_agent(session, say)
        stopped += _sweep(session, left, say)
    if "controller" in left.platform:
        stopped += stop_controller(session, say)
    memory.write(session.home, memory.Memory(objects=left.objects))
    with contextlib.suppress(OSError):
        session.up_socket.unlink(missing_ok=True)
    return stopped


def _through_supervisor(supervisor: talk.Talk, say: Say) -> list[str]:
    with supervisor:
        result = supervisor.ask({"op": "down"}, say, END_S)
    if not talk.wait_for_end(supervisor.pid, END_S):
        raise CliError(
            f"the supervisor (process {supervisor.pid}) does not end; see 'retia logs up', "
            f"or end it with: kill -9 {supervisor.pid}, then say 'retia down' again"
        )
    return [str(name) for name in result]


def _leftover_workloads(session: Session, known: memory.Memory, say: Say) -> list[str]:
    """Programs of a supervisor that was killed; those of ``retia run`` are their callers' own."""
    stopped: list[str] = []
    with contextlib.suppress(LocalError), session.agent(timeout_s=60.0) as agent:
        for item in agent.call(Workloads(), WorkloadList).workloads:
            if item.id in known.workloads:
                say(f"stopping {item.id}")
                agent.call(Stop(workload=item.id, drain_s=0), Done)
                stopped.append(item.id)
    return stopped


def stop_agent(session: Session, say: Say) -> list[str]:
    """Ends the agent with its proxies; returns its name, or nothing where none runs."""
    try:
        with session.agent(timeout_s=30.0) as agent:
            info = agent.call(Info(), AgentInfo)
            say("stopping the agent")
            agent.call(Shutdown(), Done)
    except LocalError as error:
        if error.code in ("unreachable", "timeout"):
            return []
        raise
    for pid in (info.pid, info.keeper_pid):
        if pid and not talk.wait_for_end(pid, 30.0):
            raise CliError(f"the agent (process {pid}) does not end; see 'retia logs agent'")
    return ["agent"]


def _sweep(session: Session, known: memory.Memory, say: Say) -> list[str]:
    """Ends the proxies, the worker and the supervisor's programs where the keeper was killed as well: nobody
    is left to be asked for it.

    The record of a keeper that ended in order is gone. One that lives holds a lock; nothing is done.
    """
    record = session.run / "keeper.json"
    if not record.exists():
        return []
    say("ending what a killed agent left behind")
    groups = _program_groups(record, known)
    command = processes.argv(processes.KEEPER, ["--sweep", str(session.run)])
    done = subprocess.run(command, capture_output=True, text=True, timeout=30.0, check=False)
    if done.returncode:
        raise CliError(done.stderr.strip() or "what the agent left behind can't be ended")
    for group in groups:
        with contextlib.suppress(OSError):
            (group / "cgroup.kill").write_text("1")
    return ["agent"]


def _program_groups(record: Path, known: memory.Memory) -> list[Path]:
    """The control groups of the supervisor's programs: beside those of their proxies."""
    try:
        specs = [Path(each["spec"]["cgroup"]).parent for each in json.loads(record.read_text())["processes"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [
        px.parent.parent / "wl" / px.name
        for px in specs
        if px.parent.name == "px" and unquote(px.name) in known.workloads
    ]


def stop_controller(session: Session, say: Say) -> list[str]:
    """Ends the controller; returns its name, or nothing where none runs."""
    try:
        with session.client() as client:
            pid = client.status().pid
    except ClientError as error:
        if error.code == "no_controller":
            return []
        raise
    if not pid:
        raise CliError("a controller runs that does not say its process id; end it where it was started")
    say("stopping the controller")
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        return ["controller"]
    except PermissionError as error:
        raise CliError(f"may not end the controller (process {pid}); run this as its owner") from error
    if not talk.wait_for_end(pid, 30.0):
        raise CliError(f"the controller (process {pid}) does not end; see 'retia logs controller'")
    return ["controller"]
