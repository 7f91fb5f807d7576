"""The mesh's own pair of sidecars against other pairs: CPU a request, both under load at the same moment.

The two Envoys are those of a real mesh: a workload that calls and one that answers, with mutual TLS, exact
identities and the statistics that the mesh keeps. The load enters the caller's sidecar as any program's
would: from inside its cgroup to the service's virtual address, or where there is no eBPF capture, at a local
port of the sidecar.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from tests.bench.machine import free_ports, native, pin, tool
from tests.bench.mesh import PORT, Mesh, Service, backend_service, mesh
from tests.bench.pairs import REPEATS, Load, Pair, measure, peer_pair, peers_named, ratio
from tests.bench.rows import Figure, Group, Run

SERVICES = {
    "pair-http": ("backend-http", "http", True),
    "pair-l4": ("backend-l4", "http", False),
    "pair-tcp": ("backend-tcp", "tcp", False),
}
"""By row: the service, its port's protocol, and whether its sidecar parses HTTP."""

TARGETS: dict[str, dict[str, tuple[float | None, float | None]]] = {
    "pair-http": {
        "envoy-lean": (1.0, 1.0),
        "envoy-istio-like": (0.65, 0.80),
        "nginx": (None, None),
        "haproxy": (None, None),
    },
    "pair-l4": {"envoy-lean": (0.92, 0.80)},
    "pair-tcp": {"nginx": (1.0, 1.1), "nginx-stream": (None, None)},
}
"""By row and peer: the targets when busy and at low load; ``None``: only reported."""

SHORT_REPEATS = 3
"""Of peers that nothing is promised against."""


@contextlib.contextmanager
def _mesh(run: Run) -> Iterator[tuple[Mesh, dict[str, int]]]:
    """The mesh, and for explicit capture the caller's local port by row."""
    program = native("backend", run.folder)
    ports = dict(zip(SERVICES, free_ports(len(SERVICES)), strict=True))
    explicit = os.geteuid() != 0
    upstreams = [(SERVICES[row][0], port) for row, port in ports.items()] if explicit else []
    services = [backend_service(n, program, p, inbound_http=h) for n, p, h in SERVICES.values()]
    with mesh([*services, Service("client", upstreams=upstreams)]) as running:
        yield running, ports


def _pair(running: Mesh, row: str, port: int) -> Pair:
    service = SERVICES[row][0]
    pids = running.pids()
    client = pids[running.workload("client")]
    server = pids[running.workload(service)]
    pin(server[0], 1)
    host = f"{service}:{PORT}"
    if running.capture == "explicit":
        return Pair("retia", "127.0.0.1", port, host, client[1], server[1])
    return Pair("retia", running.vip(service), PORT, host, client[1], server[1], running.cgroup(client[0]))


def _row(run: Run, row: str, own: Pair) -> Iterator[Figure]:
    for name, targets in TARGETS[row].items():
        (peer,) = peers_named(name)
        with peer_pair(peer, run.folder) as other:
            loads: tuple[Load, ...] = ("busy", "low")
            for load, target in zip(loads, targets, strict=True):
                what = f"against {name}, {load}"
                if other is None:
                    yield Figure(row, what, None, "ratio", target, note=f"{name} is not installed")
                    continue
                repeats = 1 if run.quick else REPEATS if target else SHORT_REPEATS
                found = ratio(own, other, load, run.folder, repeats)
                yield Figure(row, what, found.pop("median"), "ratio", target, found)


def measure_rows(run: Run, wanted: frozenset[str]) -> list[Figure]:
    if tool("wrk") is None:
        return [
            Figure(row, "all", None, "ratio", note="wrk is not installed: apt-get install wrk")
            for row in wanted
        ]
    figures: list[Figure] = []
    with _mesh(run) as (running, ports):
        for row in SERVICES:
            if row in wanted:
                own = _pair(running, row, ports[row])
                measure([own], "low", run.folder, 1.0)
                figures += _row(run, row, own)
    return figures


_HOW = (
    "both pairs under load at once, core 0: generators and first proxies, core 1: second ones and backends; "
    f"busy: wrk with 16 connections, low: 1,500 requests a second; median of {REPEATS} ratios"
)

GROUP = Group(
    {
        "pair-http": f"CPU a request of two sidecars, the inbound one parsing HTTP, over a peer's: {_HOW}",
        "pair-l4": f"the same with the default inbound side, which passes bytes after TLS: {_HOW}",
        "pair-tcp": f"the same on a port of protocol tcp: {_HOW}",
    },
    measure_rows,
)
