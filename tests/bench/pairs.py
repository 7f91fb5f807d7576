"""CPU a request of two pairs of proxies that are under load at the same moment on the same cores.

Absolute times on a shared machine wander; the ratio of two pairs that run side by side does not. Core 0 has
the load generators and both first proxies, core 1 both second proxies and the backends. "Busy" is ``wrk``
with 16 connections, "low" 1,500 requests a second from the open-loop generator. The result is the median
ratio of several repeats, with its least and greatest value.
"""

from __future__ import annotations

import contextlib
import functools
import re
import statistics
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.bench.machine import (
    cpu_seconds,
    free_ports,
    make_certificates,
    native,
    pin,
    running,
    tool,
    wait_port,
)
from tests.bench.mesh import enter
from tests.bench.peers import HOST, PEERS, Peer, Ports

Load = Literal["busy", "low"]
CONNECTIONS = 16
LOW_RATE = 1500
SECONDS = 2.0
REPEATS = 5


@dataclass(frozen=True)
class Pair:
    """A running pair: where the load goes, and which processes are its proxies."""

    name: str
    address: str
    port: int
    host: str
    first: int
    second: int
    cgroup: Path | None = None
    """Where the load is generated; ``None``: where we are."""


@contextlib.contextmanager
def peer_pair(peer: Peer, folder: Path) -> Iterator[Pair | None]:
    """One of the peers with a backend of its own; ``None`` where its program isn't installed."""
    place = folder / peer.name
    (place / "tmp").mkdir(parents=True, exist_ok=True)
    make_certificates(place, ("client", "server"))
    a, b, backend = free_ports(3)
    commands = peer.commands(place, Ports(a, b, backend))
    if commands is None:
        yield None
        return
    server = [str(native("backend", folder)), "127.0.0.1", str(backend)]
    with running(server, *commands, log=place / "log") as (behind, first, second):
        for port in (backend, b, a):
            wait_port("127.0.0.1", port)
        pin(behind.pid, 1)
        yield Pair(peer.name, "127.0.0.1", a, HOST, first.pid, second.pid)


def _start_load(pair: Pair, load: Load, folder: Path, seconds: float) -> subprocess.Popen[str]:
    if load == "busy":
        wrk = tool("wrk")
        if wrk is None:
            raise FileNotFoundError("the busy load needs wrk: apt-get install wrk")
        command = [wrk, "-t1", f"-c{CONNECTIONS}", f"-d{seconds:.0f}s", "-H", f"Host: {pair.host}"]
        command.append(f"http://{pair.address}:{pair.port}/")
    else:
        generator = str(native("openloop", folder))
        command = [generator, pair.address, str(pair.port), pair.host]
        command += [str(CONNECTIONS), str(LOW_RATE), str(seconds)]
    cgroup = pair.cgroup
    inside = functools.partial(enter, cgroup) if cgroup else None
    return subprocess.Popen(
        ["taskset", "-c", "0", *command],
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=inside,
        start_new_session=True,
    )


def _answered(pair: Pair, load: Load, output: str) -> int:
    pattern = r"(\d+) requests in" if load == "busy" else r'"answered": (\d+)'
    match = re.search(pattern, output)
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", output)
    if match is None or int(match[1]) == 0 or bad:
        raise RuntimeError(f"{pair.name}: the load was not answered as it should be: {output!r}")
    return int(match[1])


def measure(pairs: list[Pair], load: Load, folder: Path, seconds: float = SECONDS) -> list[float]:
    """CPU seconds a request of each pair, all under load at once."""
    for pair in pairs:
        pin(pair.first, 0)
        pin(pair.second, 1)
    for process in [_start_load(p, load, folder, 1) for p in pairs]:
        process.communicate(timeout=30)
    before = [cpu_seconds((p.first, p.second)) for p in pairs]
    loads = [_start_load(p, load, folder, seconds) for p in pairs]
    outputs = [process.communicate(timeout=seconds + 30)[0] for process in loads]
    time.sleep(0.05)
    after = [cpu_seconds((p.first, p.second)) for p in pairs]
    return [
        (end - start) / _answered(pair, load, output)
        for pair, start, end, output in zip(pairs, before, after, outputs, strict=True)
    ]


def ratio(a: Pair, b: Pair, load: Load, folder: Path, repeats: int = REPEATS) -> dict[str, float]:
    """CPU a request of ``a`` over that of ``b``, and microseconds a request of each."""
    ratios, ours, theirs = [], [], []
    for _ in range(repeats):
        x, y = measure([a, b], load, folder)
        ratios.append(x / y)
        ours.append(x * 1e6)
        theirs.append(y * 1e6)
    return {
        "median": round(statistics.median(ratios), 3),
        "min": round(min(ratios), 3),
        "max": round(max(ratios), 3),
        "cpu_us": round(statistics.median(ours), 1),
        "peer_cpu_us": round(statistics.median(theirs), 1),
        "repeats": repeats,
    }


def peers_named(*names: str) -> list[Peer]:
    return [peer for peer in PEERS if peer.name in names]
