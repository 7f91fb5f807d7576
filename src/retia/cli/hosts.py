"""``retia hosts``."""

from __future__ import annotations

import time

import typer

from retia.cli import output
from retia.cli.checks.running import MAX_SKEW_S
from retia.cli.output import Format, Output
from retia.cli.session import Session

EXAMPLES = (
    "retia hosts",
    "retia hosts -o json",
    "retia hosts -o yaml",
)


def hosts(ctx: typer.Context, output_format: Output = Format.TABLE) -> None:
    """Show the hosts with an agent: their lease, clock and certificate."""
    session: Session = ctx.obj
    with session.client() as client:
        items = client.list_hosts()
    if not items and output_format is Format.TABLE:
        output.say("no hosts; start an agent with 'retia up' or 'retia agent'")
        return
    now = time.time()
    columns = (
        "HOST",
        "LEASE",
        "CONNECTED",
        "ADDRESS",
        "WORKLOADS",
        "PROXIES",
        "SKEW",
        "CERTIFICATE",
        "VERSION",
    )
    rows = [
        (
            item.id,
            item.lease,
            item.connected,
            f"{item.advertise_address}:{item.gateway_port}" if item.gateway_port else item.advertise_address,
            item.workloads,
            item.proxies,
            f"{item.clock_skew_s:+.1f} s",
            output.until(item.certificate_expiry, now),
            item.software,
        )
        for item in items
    ]
    output.emit(items, output_format, columns, rows)
    for item in items:
        if abs(item.clock_skew_s) > MAX_SKEW_S:
            output.say(
                f"warning: the clock of host {item.id} is {abs(item.clock_skew_s):.0f} s "
                f"{'ahead of' if item.clock_skew_s > 0 else 'behind'} the controller's; set it (NTP): "
                "certificates are refused beyond five minutes"
            )
