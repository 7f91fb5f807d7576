"""How a mesh's size is felt: sidecar memory, first requests, one changed object, the agent.

One real mesh for each size. Ten services and a caller run here; the rest of the services are what the
controller remembers of other hosts. For first requests there are fifty more services, Kubernetes ``Service``
objects that select the same backends, so that each is a name, a virtual host, a cluster and a TLS handshake
of its own.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from retia.api import schema
from tests.bench.machine import memory_bytes, native
from tests.bench.mesh import PORT, Caller, Mesh, Service, backend_service, is_root, mesh, mesh_file, retia
from tests.bench.rows import Figure, Group, Run

USED = 10
SIZES = (10, 1_000, 10_000)
QUICK_SIZES = (10, 1_000)
FRESH = 50
CHANGES = 15
SETTLE_S = 90.0
MB = 1e6


def _service_documents() -> str:
    """YAML of the services that nobody has called yet."""
    document = (
        "apiVersion: v1\nkind: Service\nmetadata: {{name: fresh{0}, namespace: default}}\n"
        "spec:\n  selector: {{app: s{1}}}\n"
        "  ports: [{{name: http, port: {2}, targetPort: {2}}}]\n"
    )
    return "---\n".join(document.format(n, n % USED, PORT) for n in range(FRESH))


def _virtual_service(timeout_s: int) -> str:
    return (
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\n"
        "metadata: {name: s0, namespace: default}\nspec:\n  hosts: [s0]\n  http:\n"
        f"  - timeout: {timeout_s}s\n    route: [{{destination: {{host: s0}}}}]\n"
    )


def _apply(api: Any, text: str) -> None:
    result = api.apply([schema.Document(path="bench.yaml", text=text)])
    if not result.applied:
        raise RuntimeError("; ".join(str(f) for f in result.findings))


def measure_rows(run: Run, wanted: frozenset[str]) -> list[Figure]:
    if not is_root():
        return [Figure(row, "all", None, "", note="needs root, for eBPF capture") for row in sorted(wanted)]
    sizes = QUICK_SIZES if run.quick else SIZES
    if "sidecar-memory" not in wanted:
        sizes = sizes[-1:] if wanted & {"first-request", "one-change"} else sizes[:1]
    figures: list[Figure] = []
    for size in sizes:
        figures += _at_size(run, wanted, size, last=size == sizes[-1])
    if "sidecar-memory" in wanted:
        allocated = [
            f.value for f in figures if f.row == "sidecar-memory" and f.what.startswith("allocated,")
        ]
        found = [value for value in allocated if value is not None]
        spread = round(100 * (max(found) / min(found) - 1), 1)
        details = {"services": list(sizes)}
        figures.append(Figure("sidecar-memory", "difference between the sizes", spread, "%", 10.0, details))
    return figures


def _at_size(run: Run, wanted: frozenset[str], size: int, *, last: bool) -> list[Figure]:
    program = native("backend", run.folder)
    services = [backend_service(f"s{n}", program) for n in range(USED)]
    services.append(Service("caller"))
    figures: list[Figure] = []
    with mesh(services, remembered=size - USED) as running:
        client = running.workload("caller")
        with running.caller(client) as caller:
            for n in range(USED):
                caller.wait(f"s{n}")
            time.sleep(1)
            if "sidecar-memory" in wanted:
                figures += _sidecars(running, client, size)
            if "agent-memory" in wanted:
                figures.append(_agent(running, size, of_record=size == SIZES[0]))
            if last and "one-change" in wanted:
                figures += _one_change(running, size, 3 if run.quick else CHANGES)
            if last and "first-request" in wanted:
                figures += _first_requests(run, running, caller, services, size)
    return figures


# -- memory


def _sidecars(running: Mesh, client: str, size: int) -> list[Figure]:
    memory = running.sidecar_memory(client)
    kinds = {f"{kind}_mb": _mb(value) for kind, value in memory.items()}
    details = {"services": size, "used": USED, **kinds}
    row = "sidecar-memory"
    figures = [
        Figure(row, f"allocated, mesh of {size:,} services", kinds["allocated_mb"], "MB", 12.0, details)
    ]
    if size == SIZES[0]:
        every = [running.sidecar_memory(w) for w in running.pids() if w != client]
        sums = {f"{kind}_mb": _sum_mb([m[kind] for m in every]) for kind in memory}
        details = {"services": size, "sidecars": len(every), **sums}
        figures.append(
            Figure(row, f"PSS of {len(every)} sidecars of one host", sums["pss_mb"], "MB", None, details)
        )
    return figures


def _agent(running: Mesh, size: int, *, of_record: bool) -> Figure:
    info = running.agent()
    parts = {"keeper": memory_bytes(info.keeper_pid), "worker": memory_bytes(info.pid)}
    total = _sum_mb([m["rss"] for m in parts.values()])
    count = len(running.pids())
    details = {f"{name}_{kind}_mb": _mb(m[kind]) for name, m in parts.items() for kind in ("rss", "pss")}
    target = 80.0 + count if of_record else None
    what = f"RSS of keeper and worker, {count} sidecars, mesh of {size:,} services"
    return Figure("agent-memory", what, total, "MB", target, {"sidecars": count, "services": size, **details})


def _mb(value: int | None) -> float | None:
    return None if value is None else round(value / MB, 1)


def _sum_mb(values: list[int | None]) -> float | None:
    return _mb(sum(v for v in values if v is not None)) if None not in values else None


# -- one object changes


def _one_change(running: Mesh, size: int, changes: int) -> list[Figure]:
    """Every sidecar here has called ``s0``, so all of them hold what its VirtualService shapes."""
    for workload in running.pids():
        with running.caller(workload) as caller:
            caller.wait("s0")
    proxies = len(running.pids())
    taken: list[float] = []
    returned: list[float] = []
    recomputed: list[float] = []
    affected: list[float] = []
    with running.api() as api, ThreadPoolExecutor(1) as pool:
        _apply(api, _virtual_service(1))
        _until(lambda: _acked(api, proxies, {}) is not None, 10)
        settled_s = _settle(api)
        for turn in range(changes):
            before = _acked(api, proxies, {}) or {}
            counted = api.status().counters
            begin = time.perf_counter()
            # The call itself comes back later than the change reaches the proxies: it also tells what an
            # analysis of the whole configuration finds.
            call = pool.submit(_apply_apart, running, _virtual_service(2 + turn))
            _until(lambda held=before: _acked(api, proxies, held) is not None, 10)
            taken.append(time.perf_counter() - begin)
            call.result(timeout=30)
            returned.append(time.perf_counter() - begin)
            time.sleep(0.2)
            after = api.status().counters
            recomputed.append(after["resources_recomputed"] - counted["resources_recomputed"])
            affected.append(after["names_affected"] - counted["names_affected"])
    details = {
        "services": size,
        "proxies": proxies,
        "repeats": changes,
        "max_ms": round(max(taken) * 1000, 1),
        "apply_returned_ms": round(statistics.median(returned) * 1000, 1),
        "standby_settled_s": round(settled_s, 1),
        "resources_recomputed": statistics.median(recomputed),
        "resources_affected": statistics.median(affected),
    }
    most = statistics.median(recomputed) - statistics.median(affected)
    return [
        Figure("one-change", "until all affected proxies have ACKed", _ms(taken), "ms", 100.0, details),
        Figure("one-change", "resources recomputed beyond those affected", most, "resources", 0.0, details),
    ]


def _apply_apart(running: Mesh, text: str) -> None:
    with running.api() as api:
        _apply(api, text)


def _settle(api: Any) -> float:
    """Until the standby copies of a new mesh have been sent, or the time is over; the seconds."""
    begin = time.monotonic()
    last = -1.0
    while time.monotonic() - begin < SETTLE_S:
        now = api.status().counters["resources_recomputed"]
        if now == last:
            break
        last = now
        time.sleep(1.0)
    return time.monotonic() - begin


def _acked(api: Any, proxies: int, before: dict[tuple[str, str], str]) -> dict[tuple[str, str], str] | None:
    """The object's resources at each proxy by version, once all have ACKed others than ``before``."""
    delivery = api.delivery("VirtualService", "default", "s0")
    held = {(p.proxy, p.resource): p.wanted for p in delivery.proxies if p.state == "acked"}
    changed = {key for key, version in held.items() if before.get(key) != version}
    done = len({proxy for proxy, _ in changed}) >= proxies and len(held) == len(delivery.proxies)
    return held if done else None


def _until(condition: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError("the proxies have not acknowledged the change")
        # Asking costs the controller time as well.
        time.sleep(0.005)


# -- first requests


def _first_requests(
    run: Run, running: Mesh, caller: Caller, services: list[Service], size: int
) -> list[Figure]:
    with running.api() as api:
        _apply(api, _service_documents())
    caller.wait("fresh0")
    time.sleep(1)
    names = [f"fresh{n}" for n in range(1, FRESH)]
    first, warm = _first_and_warm(caller, names)
    # What was used is learned, and a replica of the same kind has it from its start.
    services = [*services[:-1], Service("caller", replicas=2)]
    time.sleep(1)
    retia(running.home, "up", str(mesh_file(running.home / "retia.yaml", services)))
    replica = max(w for w in running.pids() if w.startswith("default/caller-"))
    with running.caller(replica) as second:
        second.wait("fresh0")
        again, again_warm = _first_and_warm(second, names)
    extra = _ms(first) - _ms(warm)
    details = {"services": size, "fresh": len(names), "first_p50_ms": _ms(first), "warm_p50_ms": _ms(warm)}
    details["first_p90_ms"] = round(statistics.quantiles(first, n=10)[8] * 1000, 2)
    later = {**details, "first_p50_ms": _ms(again), "warm_p50_ms": _ms(again_warm)}
    later["first_p90_ms"] = round(statistics.quantiles(again, n=10)[8] * 1000, 2)
    row = "first-request"
    return [
        Figure(row, "first request over a warm one, p50", round(extra, 2), "ms more", 10.0, details),
        Figure(
            row,
            "the same at a second replica of the workload (target: no more than at the first)",
            round(_ms(again) - _ms(again_warm), 2),
            "ms more",
            round(extra, 2),
            later,
        ),
    ]


def _first_and_warm(caller: Caller, names: list[str]) -> tuple[list[float], list[float]]:
    """Seconds of the first request to each service, and of the third; each has a connection of its own."""
    first, warm = [], []
    for name in names:
        answers = [caller.get(name) for _ in range(3)]
        if any(a["status"] != 200 for a in answers):
            raise RuntimeError(f"{name} answered {answers}")
        first.append(answers[0]["total_ms"] / 1000)
        warm.append(answers[2]["total_ms"] / 1000)
    return first, warm


def _ms(seconds: list[float]) -> float:
    return round(statistics.median(seconds) * 1000, 2)


GROUP = Group(
    {
        "sidecar-memory": f"`/memory` of the Envoy of a workload that has called {USED} services; RSS and "
        "PSS from the kernel",
        "agent-memory": "RSS of the agent's two processes, pages shared between them counted twice",
        "one-change": "a VirtualService's timeout changes; from the start of the API call until its delivery "
        "status says ACKed at every proxy that has used the host; counters of the controller",
        "first-request": f"{FRESH - 1} services, each request with its name lookup and a connection of its "
        "own; the difference of the medians of first and third requests",
    },
    measure_rows,
)
