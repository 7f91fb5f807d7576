"""What capture adds to connect(): the same call outside and inside a captured cgroup, in alternating pairs.

Three clients connect to servers of one kind, all at addresses of the mesh's loopback ranges: ``outside``
the mesh; ``untouched``, captured but to a destination that is not in the mesh; ``redirected``, to a virtual
address that capture sends to a listener in a proxy's cgroup. Only connect() itself is timed (kernel time of
both ends included, since loopback delivers in the caller's context). A round asks each client for one
batch, in turning order; the result is the median over rounds of each round's ratio, so that drift of the
machine falls out. Needs root.

``python -m tests.bench.connect_cost [ROUNDS]`` prints JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from retia.model.mesh import Protocol
from retia.node.addresses import workload_addresses
from retia.node.capture import HostCapture, InstanceAddresses

INDEX = 13
ROUNDS = 300
BATCH = 100
VIP, VIP_PORT = "240.240.200.1", 80
OUTSIDE_PORT = 24080

_SERVER = """
import socket, sys
s = socket.create_server((sys.argv[1], int(sys.argv[2])), backlog=512)
print("ready", flush=True)
while True: s.accept()[0].close()
"""

_CLIENT = """
import socket, struct, sys, time
where, batch = (sys.argv[1], int(sys.argv[2])), int(sys.argv[3])
linger = struct.pack("ii", 1, 0)
for _ in sys.stdin:
    taken = []
    for _ in range(batch):
        s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        start = time.perf_counter_ns(); s.connect(where); taken.append(time.perf_counter_ns() - start)
        s.close()
    taken.sort()
    print(taken[len(taken) // 2], flush=True)
"""


class _Run:
    """A Python program in a cgroup (None: where we are)."""

    def __init__(self, code: str, cgroup: Path | None, core: int, *arguments: str) -> None:
        command = [sys.executable, "-IS", "-c", code, *arguments]
        cores = sorted(os.sched_getaffinity(0))

        def enter() -> None:
            os.sched_setaffinity(0, {cores[core % len(cores)]})
            if cgroup is not None:
                (cgroup / "cgroup.procs").write_text("0")

        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=enter
        )

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def batch(self) -> int:
        """The median of one batch, nanoseconds."""
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return int(self.line())


@contextlib.contextmanager
def _captured() -> Iterator[tuple[Path, Path, str]]:
    """The cgroups of an instance and its proxy, and the instance's app address."""
    addresses = workload_addresses(INDEX, 1)
    capture = HostCapture.open(INDEX)
    try:
        workload = capture.add_instance(InstanceAddresses("bench", addresses.published, addresses.app))
        proxy = capture.proxy_cgroup("bench")
        capture.set_destination(VIP, VIP_PORT, Protocol.HTTP)
        yield workload, proxy, addresses.app
    finally:
        capture.remove_instance("bench", kill=True)
        capture.remove_proxy("bench", kill=True)
        capture.close(teardown=True)


def measure(rounds: int = ROUNDS, batch: int = BATCH) -> dict[str, Any]:
    """Medians in microseconds, and ratios to ``outside``."""
    with _captured() as (workload, proxy, app):
        published = workload_addresses(INDEX, 1).published
        servers = [
            _Run(_SERVER, None, 1, published, str(OUTSIDE_PORT)),
            _Run(_SERVER, proxy, 1, app, "15001"),
        ]
        clients = {
            "outside": _Run(_CLIENT, None, 0, published, str(OUTSIDE_PORT), str(batch)),
            "untouched": _Run(_CLIENT, workload, 0, published, str(OUTSIDE_PORT), str(batch)),
            "redirected": _Run(_CLIENT, workload, 0, VIP, str(VIP_PORT), str(batch)),
        }
        try:
            for server in servers:
                server.line()
            return _summary(_rounds(clients, rounds), rounds, batch)
        finally:
            for run in (*servers, *clients.values()):
                run.process.kill()
                run.process.communicate(timeout=10)


def _rounds(clients: dict[str, _Run], rounds: int) -> dict[str, list[int]]:
    names = list(clients)
    taken: dict[str, list[int]] = {name: [] for name in names}
    for name in names:
        clients[name].batch()  # warm
    for turn in range(rounds):
        for shift in range(len(names)):
            name = names[(turn + shift) % len(names)]
            taken[name].append(clients[name].batch())
    return taken


def _summary(taken: dict[str, list[int]], rounds: int, batch: int) -> dict[str, Any]:
    base = taken["outside"]
    result: dict[str, Any] = {"benchmark": "connect_cost", "rounds": rounds, "batch": batch}
    for name, values in taken.items():
        ratios = sorted(value / reference for value, reference in zip(values, base, strict=True))
        result[name] = {"p50_us": round(statistics.median(values) / 1000, 2)}
        if name != "outside":
            result[name]["ratio"] = round(statistics.median(ratios), 3)
            result[name]["ratio_quartiles"] = [round(q, 3) for q in statistics.quantiles(ratios, n=4)]
    result["limit_ratio"] = 1.15
    return result


if __name__ == "__main__":
    chosen = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    print(json.dumps(measure(chosen), indent=2))
