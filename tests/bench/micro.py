"""Rows that need no whole mesh: fan-out of one change, and what capture adds to connect()."""

from __future__ import annotations

from tests.bench import connect_cost, fanout
from tests.bench.mesh import is_root
from tests.bench.rows import Figure, Group, Run

STREAMS = 1_000


def measure_rows(run: Run, wanted: frozenset[str]) -> list[Figure]:
    figures: list[Figure] = []
    if "fan-out" in wanted:
        figures += _fan_out(run)
    if "connect" in wanted:
        figures += _connect(run)
    return figures


def _fan_out(run: Run) -> list[Figure]:
    found = fanout.measure(100 if run.quick else STREAMS, 3 if run.quick else 9)
    time_ms, cpu_ms = found.pop("all_received_ms"), found.pop("controller_cpu_ms")
    streams = found["streams"]
    return [
        Figure("fan-out", f"until all {streams:,} streams have it", time_ms, "ms", 200.0, found),
        Figure("fan-out", "the controller's CPU", cpu_ms, "ms", 200.0, found),
    ]


def _connect(run: Run) -> list[Figure]:
    if not is_root():
        return [Figure("connect", "all", None, "ratio", 1.15, note="needs root, for eBPF capture")]
    found = connect_cost.measure(40 if run.quick else connect_cost.ROUNDS)
    sizes = {"rounds": found["rounds"], "batch": found["batch"], "outside_us": found["outside"]["p50_us"]}
    figures = []
    for where in ("redirected", "untouched"):
        details = {**sizes, **{k: v for k, v in found[where].items() if k != "ratio"}}
        figures.append(Figure("connect", where, found[where]["ratio"], "ratio", 1.15, details))
    return figures


GROUP = Group(
    {
        "fan-out": "one endpoint of 50 goes or comes back; a connection a stream, all to one controller "
        "process on a core of its own, each acknowledging; the clients (raw HTTP/2) are on the other cores",
        "connect": "connect() alone, in a captured cgroup over the same outside, alternating; to a service "
        "(redirected) and to what is not in the mesh (untouched)",
    },
    measure_rows,
)
