"""How long starts take: a controller from a large store, and ``retia up`` until a program has an answer."""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

from retia.api.client import Client
from tests.bench.machine import cpu_seconds, memory_bytes, native
from tests.bench.mesh import (
    PORT,
    Mesh,
    Service,
    backend_service,
    controller,
    home_folder,
    is_root,
    mesh_file,
    retia,
    seed,
)
from tests.bench.rows import Figure, Group, Run

SERVICES, QUICK_SERVICES = 10_000, 1_000
ENDPOINTS_EACH = 5
STARTS = 5

_FIRST = """
import socket, sys, time
while True:
    try:
        with socket.create_connection((sys.argv[1], int(sys.argv[2])), 5) as s:
            s.sendall(b"GET / HTTP/1.1\\r\\nHost: backend:9080\\r\\nConnection: close\\r\\n\\r\\n")
            if s.recv(65536).split(b" ", 2)[1] == b"200": break
    except OSError: pass
    time.sleep(0.005)
with open(sys.argv[3] + ".new", "w") as f: f.write(str(time.monotonic()))
import os; os.rename(sys.argv[3] + ".new", sys.argv[3])
time.sleep(1000000)
"""
"""A program of the mesh: it writes down when it had its first answer."""


def measure_rows(run: Run, wanted: frozenset[str]) -> list[Figure]:
    figures: list[Figure] = []
    if "controller-start" in wanted:
        figures += _controller_start(run)
    if wanted & {"up", "agent-memory-one"}:
        figures += _up(run)
    return [f for f in figures if f.row in wanted]


def _controller_start(run: Run) -> list[Figure]:
    services = QUICK_SERVICES if run.quick else SERVICES
    with home_folder() as home:
        seed(home, services, ENDPOINTS_EACH)
        with controller(home) as (process, seconds):
            used = cpu_seconds([process.pid])
            with Client(home / "run" / "api.sock") as api:
                status = api.status()
            time.sleep(1)
            memory = memory_bytes(process.pid)
    if status.services < services or status.workloads < services * ENDPOINTS_EACH:
        raise RuntimeError(f"the controller knows {status.services} services, {status.workloads} workloads")
    details = {"services": status.services, "endpoints": status.workloads, "cpu_s": round(used, 1)}
    details["pss_mb"] = round(memory["pss"] / 1e6)
    return [
        Figure("controller-start", "RSS", round(memory["rss"] / 1e6), "MB", 700.0, details),
        Figure("controller-start", "from its command to ready", round(seconds, 1), "s", 15.0, details),
    ]


def _up(run: Run) -> list[Figure]:
    if not is_root():
        return [Figure(row, "all", None, "", note="needs root, for eBPF capture") for row in GROUP.rows][1:]
    program = native("backend", run.folder)
    taken, returned, agents = [], [], []
    for _ in range(1 if run.quick else STARTS):
        with home_folder() as home:
            try:
                begin = time.monotonic()
                first, back = _first_answer(home, program)
                taken.append(first - begin)
                returned.append(back - begin)
                agents.append(_agent_memory(Mesh(home, "ebpf", 0)))
            finally:
                retia(home, "down")
    details = {
        "repeats": len(taken),
        "min_s": round(min(taken), 2),
        "max_s": round(max(taken), 2),
        "command_returned_s": round(statistics.median(returned), 2),
    }
    keeper, worker, sidecars = agents[-1]
    return [
        Figure(
            "up",
            "from the command to a program's first answer, two services",
            round(statistics.median(taken), 2),
            "s",
            8.0,
            details,
        ),
        Figure(
            "agent-memory-one",
            f"RSS of keeper and worker, {sidecars} sidecars",
            round((keeper + worker) / 1e6, 1),
            "MB",
            80.0 + sidecars,
            {"keeper_rss_mb": round(keeper / 1e6, 1), "worker_rss_mb": round(worker / 1e6, 1)},
        ),
    ]


def _first_answer(home: Path, program: Path) -> tuple[float, float]:
    """The moment of the first answer, and when the command came back."""
    mark = home / "first"
    script = home / "first.py"
    script.write_text(_FIRST)
    command = f"{sys.executable} -IS {script} backend {PORT} {mark}"
    file = mesh_file(home / "retia.yaml", [backend_service("backend", program), Service("client", command)])
    retia(home, "up", str(file), "--detach")
    back = time.monotonic()
    while not mark.exists():
        if time.monotonic() - back > 30:
            log = (home / "log" / "agent.log").read_text()
            raise TimeoutError(f"no answer; the agent's log ends: {log[-1000:]}")
        time.sleep(0.01)
    return float(mark.read_text()), back


def _agent_memory(running: Mesh) -> tuple[int, int, int]:
    info = running.agent()
    return memory_bytes(info.keeper_pid)["rss"], memory_bytes(info.pid)["rss"], len(running.pids())


GROUP = Group(
    {
        "controller-start": "workloads of 100 hosts in the store; `retia controller` until its API "
        "says ready, then RSS after one more second",
        "up": "`retia up FILE --detach` with an empty home, until a program that it started has been "
        "answered by another one through both sidecars",
        "agent-memory-one": "RSS of the agent's two processes in that mesh",
    },
    measure_rows,
)
