"""``retia proxies``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import typer

from retia.cli import output
from retia.cli.output import Format, Output
from retia.cli.session import Session

if TYPE_CHECKING:
    from retia.api.schema import Nack, ProxyInfo

EXAMPLES = (
    "retia proxies",
    "retia proxies -o json",
    "retia proxies | grep -v synced",
)


def proxies(ctx: typer.Context, output_format: Output = Format.TABLE) -> None:
    """Show every Envoy: its state, what it has acknowledged, its certificate and its memory.

    SYNC is read from the proxies' own acknowledgements: 'synced' means that each holds exactly what the
    controller serves now. Refused resources are listed below with the object and field they came from.
    """
    session: Session = ctx.obj
    with session.client() as client:
        items = client.list_proxies()
    if not items and output_format is Format.TABLE:
        output.say("no proxies; every workload brings one: 'retia run' or 'retia up'")
        return
    now = time.time()
    columns = (
        "PROXY",
        "KIND",
        "STATE",
        "SYNC",
        "CERTIFICATE",
        "ALLOCATED",
        "RSS",
        "RESTARTS",
        "ENVOY",
        "HOST",
    )
    rows = [
        (
            item.id,
            item.kind,
            item.state,
            sync_word(item),
            output.until(item.certificate_expiry, now),
            output.size(item.allocated_bytes),
            output.size(item.rss_bytes),
            item.restarts,
            item.envoy_version,
            item.host,
        )
        for item in items
    ]
    output.emit(items, output_format, columns, rows)
    if output_format is Format.TABLE:
        for item in items:
            for nack in item.nacks:
                output.say(f"{item.id} refused {describe_nack(nack)}")


def describe_nack(nack: Nack) -> str:
    """The resource, what it came from, and Envoy's reason, in one line."""
    source = ": ".join(part for part in (nack.object, nack.field) if part)
    came = f" (from {source})" if source else ""
    return f"{nack.resource}{came}: {' '.join(nack.error.split())}"


def sync_word(item: ProxyInfo) -> str:
    """``synced``, or the types that are behind: ``stale CDS 3/4``."""
    if not item.connected:
        return "no stream"
    if item.nacks:
        return f"nacked {len(item.nacks)}"
    behind = [f"{s.type} {s.acked}/{s.wanted}" for s in item.sync if not s.synced]
    return f"stale {', '.join(behind)}" if behind else "synced"
