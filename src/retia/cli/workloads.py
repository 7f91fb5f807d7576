"""``retia workloads``."""

from __future__ import annotations

import typer

from retia.cli import output
from retia.cli.output import Format, Namespace, Output
from retia.cli.session import Session

EXAMPLES = (
    "retia workloads",
    "retia workloads -n shop",
    "retia workloads -o json",
)


def workloads(ctx: typer.Context, namespace: Namespace = None, output_format: Output = Format.TABLE) -> None:
    """Show the running instances that the controller knows, of all hosts."""
    session: Session = ctx.obj
    with session.client() as client:
        items = client.list_workloads(namespace)
    if not items and output_format is Format.TABLE:
        output.say("no workloads; start one with 'retia run' or 'retia up'")
        return
    columns = ("WORKLOAD", "SERVICE", "VERSION", "STATE", "PORTS", "ADDRESS", "CAPTURE", "HOST", "IDENTITY")
    rows = [
        (
            item.id,
            item.service,
            item.version,
            item.state,
            ",".join(f"{p.number}/{p.protocol}" + ("" if p.listening else "(closed)") for p in item.ports),
            item.published_address,
            item.capture,
            item.host,
            item.identity,
        )
        for item in items
    ]
    output.emit(items, output_format, columns, rows)
