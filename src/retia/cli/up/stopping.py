"""``retia down``: through the supervisor, or by hand where it was killed."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable

from retia.api.client import ClientError
from retia.api.local import AgentInfo, Done, Info, LocalError, Shutdown, Stop, WorkloadList, Workloads
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
