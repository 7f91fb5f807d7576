"""``retia status``."""

from __future__ import annotations

import time

import typer

from retia.cli import output
from retia.cli.output import Format, Output
from retia.cli.session import Session

EXAMPLES = (
    "retia status",
    "retia status -o json",
    "retia --home /srv/mesh status",
)


def status(ctx: typer.Context, output_format: Output = Format.TABLE) -> None:
    """Show the controller's own state: what it holds, its authority, its counters, its findings."""
    session: Session = ctx.obj
    with session.client() as client:
        item = client.status()
    now = time.time()
    registry = "frozen" if item.registry_frozen else "live"
    if item.registry_frozen:
        ends = f" (ends {output.until(item.registry_until, now)})" if item.registry_until else ""
        registry += f": {item.registry_reason}{ends}"
    rows: list[tuple[str, object]] = [
        ("version", item.version),
        ("ready", item.ready),
        ("up for", output.span(now - item.started) if item.started else ""),
        ("home", item.home),
        ("mesh index", item.mesh_index),
        ("xDS address", item.xds_address),
        ("revision", item.revision),
        ("registry", registry),
        ("objects", item.objects),
        ("services", item.services),
        ("workloads", item.workloads),
        ("proxies", item.proxies),
        ("hosts", item.hosts),
    ]
    rows += [(c.subject, f"expires {output.until(c.expiry, now)}") for c in item.authority]
    rows += [(f"bypass of {workload}", ends) for workload, ends in _bypasses(session, now)]
    rows += [(name, f"{value:g}") for name, value in sorted(item.counters.items())]
    output.emit(item, output_format, ("WHAT", "VALUE"), rows)
    output.show_findings(item.findings)


def _bypasses(session: Session, now: float) -> list[tuple[str, str]]:
    """Workloads of this host whose calls go around their proxies; none where no agent answers."""
    from retia.api.local import LocalError, WorkloadList, Workloads

    if not session.agent_socket.exists():
        return []
    try:
        with session.agent(timeout_s=2.0) as agent:
            found = agent.call(Workloads(), WorkloadList).workloads
    except LocalError:
        return []
    return [
        (
            w.id,
            f"ends {output.until(w.bypass_until, now)}" + (f": {w.bypass_reason}" if w.bypass_reason else ""),
        )
        for w in found
        if w.bypass_until
    ]
