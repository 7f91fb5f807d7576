"""What one decision of the counting service costs, with counters in memory."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from envoy.service.ratelimit.v3 import rls_pb2
from grpclib.client import Channel, UnaryUnaryMethod

from retia.model import limit
from retia.model.limit import Counted
from retia.ratelimit.service import PATH
from tests.bench.rows import Figure, Group, Run

DECISIONS = 20_000
AT_ONCE = 32
START_S = 20.0
TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def measure_rows(run: Run, _wanted: frozenset[str]) -> list[Figure]:
    path = run.folder / "ratelimit.sock"
    argv = [sys.executable, "-m", "retia.ratelimit.main", "--listen", f"unix:{path}"]
    service = subprocess.Popen(argv, stderr=subprocess.DEVNULL)
    try:
        _wait(path)
        found = asyncio.run(_measure(path, service.pid, 1_000 if run.quick else DECISIONS))
    finally:
        service.terminate()
        service.wait(10)
    return [
        Figure("ratelimit", "decisions a second, of one core", found.pop("per_core"), "1/s", None, found),
        Figure("ratelimit", "one decision, alone, at the median", found.pop("alone_ms"), "ms"),
    ]


def _wait(path: Path) -> None:
    until = time.monotonic() + START_S
    while True:
        with socket.socket(socket.AF_UNIX) as sock:
            try:
                sock.connect(str(path))
                return
            except OSError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.05)


async def _measure(path: Path, pid: int, decisions: int) -> dict[str, Any]:
    channel = Channel(path=str(path))
    ask = UnaryUnaryMethod(channel, PATH, rls_pb2.RateLimitRequest, rls_pb2.RateLimitResponse)
    try:
        alone = []
        for n in range(500):
            begin = time.perf_counter()
            await ask(_question(n))
            alone.append(time.perf_counter() - begin)
        cpu, begin = _cpu_s(pid), time.perf_counter()

        async def some(first: int) -> None:
            for n in range(first, decisions, AT_ONCE):
                await ask(_question(n))

        async with asyncio.TaskGroup() as group:
            for first in range(AT_ONCE):
                group.create_task(some(first), name=f"asks {first}")
        cpu, elapsed = _cpu_s(pid) - cpu, time.perf_counter() - begin
    finally:
        channel.close()
    return {
        "per_core": round(decisions / max(cpu, TICK_S)),
        "alone_ms": round(sorted(alone)[len(alone) // 2] * 1000, 3),
        "decisions": decisions,
        "at_once": AT_ONCE,
        "cpu_us_each": round(cpu / decisions * 1e6, 1),
        "with_this_client_1/s": round(decisions / elapsed),
    }


def _question(number: int) -> Any:
    """Two limits; a thousand users."""
    question = rls_pb2.RateLimitRequest(domain=limit.DOMAIN)
    every = question.descriptors.add()
    every.entries.add(key=limit.KEY, value=str(Counted("default/shop/all", 10**9, 60)))
    user = question.descriptors.add()
    user.entries.add(key=limit.KEY, value=str(Counted("default/shop/user", 10, 60)))
    user.entries.add(key="header:x-user", value=f"user-{number % 1000}")
    return question


def _cpu_s(pid: int) -> float:
    """User and system time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK_S


GROUP = Group(
    {
        "ratelimit": "questions about two limits each, of a thousand users, over a unix socket to the "
        "counting service with counters in memory; its own CPU time counts, not that of the client"
    },
    measure_rows,
)
