"""``retia lane status``: what a traffic lane consists of now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from retia.cli import output
from retia.cli.errors import CliError
from retia.cli.output import Format, Namespace, Output
from retia.cli.run import LANE_LABEL
from retia.cli.session import Session

if TYPE_CHECKING:
    from retia.api.schema import WorkloadInfo

EXAMPLES = (
    "retia lane status",
    "retia lane status alice",
    "retia lane status alice -o json",
)


def status(
    ctx: typer.Context,
    name: Annotated[str | None, typer.Argument(help="One lane; absent: all.")] = None,
    namespace: Namespace = None,
    output_format: Output = Format.TABLE,
) -> None:
    """Show the instances that serve a lane, by service; every other service serves it with its baseline.

    A lane is carried by the programs themselves: one that does not pass the baggage header on from the
    requests it gets to those it makes ends the lane there. Proxies cannot see which request of a program
    belongs to which, so this is not shown.
    """
    session: Session = ctx.obj
    with session.client() as client:
        lanes = [o for o in client.list_objects("TrafficLane", namespace) if name in (None, o.name)]
        workloads = client.list_workloads()
    rows = [row for lane in lanes for row in members(lane.name, lane.namespace, lane.manifest, workloads)]
    if name is not None and not lanes:
        rows = members(name, "", {}, workloads)
        if not rows:
            raise CliError(
                f"lane {name} does not exist: neither a TrafficLane nor an instance has it; "
                "'retia lane status' lists the lanes"
            )
        if output_format is Format.TABLE:
            output.say(f"there is no TrafficLane {name}: no request is on it until one is applied")
    if not rows and output_format is Format.TABLE:
        where = f" of {name}" if name else ""
        output.say(f"no instance{where} serves a lane; 'retia run --lane' starts one")
        return
    columns = ("LANE", "SERVICE", "VERSION", "WORKLOAD", "BY", "STATE")
    data = [dict(zip((c.lower() for c in columns), row, strict=True)) for row in rows]
    output.emit(data, output_format, columns, rows)


def members(
    lane: str, namespace: str, manifest: dict[str, Any], workloads: list[WorkloadInfo]
) -> list[tuple[str, ...]]:
    """Lane, service, version, workload, what made it a member, and its state; sorted."""
    named = (manifest.get("spec") or {}).get("versions") or {}
    labelled = {(w.namespace, w.service) for w in workloads if w.labels.get(LANE_LABEL) == lane}
    rows = []
    for each in workloads:
        if not each.service:
            continue
        wanted = named.get(each.service, {}) if each.namespace == namespace else {}
        full = named.get(f"{each.service}.{each.namespace}.svc.cluster.local", wanted)
        if each.labels.get(LANE_LABEL) == lane:
            by = f"label {LANE_LABEL}"
        elif (
            full
            and LANE_LABEL not in each.labels
            and (each.namespace, each.service) not in labelled
            and full.items() <= each.labels.items()
        ):
            by = "versions"
        else:
            continue
        rows.append((lane, f"{each.service}.{each.namespace}", each.version, each.id, by, each.state))
    return sorted(rows)
