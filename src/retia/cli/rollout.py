"""``retia rollout``: status, promote, abort, pause, resume, restart."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from retia.cli import output
from retia.cli.errors import CliError, UsageError
from retia.cli.output import Format, Namespace, Output
from retia.cli.session import Session

if TYPE_CHECKING:
    from retia.api.schema import RolloutInfo

WATCH_EVERY_S = 0.5
COLUMNS = (
    "NAMESPACE",
    "NAME",
    "SERVICE",
    "PHASE",
    "STEP",
    "WEIGHT",
    "REQUESTS",
    "SUCCESS",
    "LATENCY",
    "CHANGED",
)

Name = Annotated[str, typer.Argument(help="The rollout.")]
Watch = Annotated[bool, typer.Option("--watch", "-w", help="Show every change until it has ended.")]

STATUS_EXAMPLES = (
    "retia rollout status",
    "retia rollout status reviews --watch",
    "retia rollout status reviews -o json",
)
PROMOTE_EXAMPLES = (
    "retia rollout promote reviews",
    "retia rollout promote reviews -n shop",
    "retia rollout promote reviews && retia get rollout reviews",
)
ABORT_EXAMPLES = (
    "retia rollout abort reviews",
    "retia rollout abort reviews -n shop",
    "retia rollout abort reviews && retia rollout status reviews",
)
PAUSE_EXAMPLES = (
    "retia rollout pause reviews",
    "retia rollout pause reviews -n shop",
    "retia rollout pause reviews && retia rollout status reviews",
)
RESUME_EXAMPLES = (
    "retia rollout resume reviews",
    "retia rollout resume reviews -n shop",
    "retia rollout resume reviews && retia rollout status reviews --watch",
)
RESTART_EXAMPLES = (
    "retia rollout restart reviews",
    "retia rollout restart reviews -n shop",
    "retia rollout restart reviews && retia rollout status reviews --watch",
)


def status(
    ctx: typer.Context,
    name: Annotated[str | None, typer.Argument(help="One rollout; absent: all.")] = None,
    namespace: Namespace = None,
    watch: Watch = False,
    output_format: Output = Format.TABLE,
) -> None:
    """Show how far rollouts have come, what they wait for and what was measured.

    REQUESTS, SUCCESS and LATENCY are the canary's in the current step. With --watch every change is printed
    until the rollout has ended; the exit status is then 0 if it was promoted and 1 if it was taken back.
    """
    session: Session = ctx.obj
    if watch:
        if name is None or output_format is not Format.TABLE:
            raise UsageError("--watch follows one rollout as text; give its name and no -o")
        with session.client() as client:
            _follow(lambda: client.get_rollout(namespace or "default", name))
        return
    with session.client() as client:
        if name is not None:
            items = [client.get_rollout(namespace or "default", name)]
        else:
            items = client.list_rollouts(namespace)
    if not items and output_format is Format.TABLE:
        output.say("no rollouts; 'retia apply' a Rollout to begin one")
        return
    now = time.time()
    output.emit(items, output_format, COLUMNS, [_row(item, now) for item in items])
    if output_format is Format.TABLE:
        for item in items:
            if why := _why(item):
                output.say(f"{item.namespace}/{item.name}: {why}")


def promote(
    ctx: typer.Context, name: Name, namespace: Namespace = None, output_format: Output = Format.TABLE
) -> None:
    """Send all requests to the canary now, whatever its steps and gates say."""
    _tell(ctx, name, namespace, "promote", output_format)


def abort(
    ctx: typer.Context, name: Name, namespace: Namespace = None, output_format: Output = Format.TABLE
) -> None:
    """Take all requests from the canary now; also after it was promoted."""
    _tell(ctx, name, namespace, "abort", output_format)


def pause(
    ctx: typer.Context, name: Name, namespace: Namespace = None, output_format: Output = Format.TABLE
) -> None:
    """Stay at the current weight. The gates still take a bad canary back."""
    _tell(ctx, name, namespace, "pause", output_format)


def resume(
    ctx: typer.Context, name: Name, namespace: Namespace = None, output_format: Output = Format.TABLE
) -> None:
    """Go on after a pause, whether a step or a person asked for it."""
    _tell(ctx, name, namespace, "resume", output_format)


def restart(
    ctx: typer.Context, name: Name, namespace: Namespace = None, output_format: Output = Format.TABLE
) -> None:
    """Begin again at the first step, also when the rollout has ended."""
    _tell(ctx, name, namespace, "restart", output_format)


def _tell(ctx: typer.Context, name: str, namespace: str | None, action: str, output_format: Format) -> None:
    from retia.api.schema import RolloutCommand

    session: Session = ctx.obj
    with session.client() as client:
        request = RolloutCommand.model_validate({"action": action})
        item = client.command_rollout(namespace or "default", name, request)
    if output_format is Format.TABLE:
        output.say(_line(item))
    else:
        output.emit(item, output_format)


def _follow(fetch: Callable[[], RolloutInfo]) -> None:
    shown = ""
    while True:
        item = fetch()
        line = _line(item)
        if line != shown:
            output.write(f"{line}\n")
            shown = line
        if item.phase in ("rolled-back", "aborted"):
            raise CliError(f"rollout {item.namespace}/{item.name} was taken back: {item.reason}")
        if item.phase == "promoted":
            return
        time.sleep(WATCH_EVERY_S)


def _line(item: RolloutInfo) -> str:
    why = _why(item)
    return (
        f"{item.namespace}/{item.name}: {item.phase}, step {item.step} of {len(item.steps)}, "
        f"{item.weight} % canary" + (f"; {why}" if why else "")
    )


def _why(item: RolloutInfo) -> str:
    waits = f"waits for {item.waiting}" if item.waiting else ""
    return "; ".join(part for part in (item.reason, waits) if part)


def _row(item: RolloutInfo, now: float) -> tuple[object, ...]:
    success = "" if item.success_percent is None else f"{item.success_percent:.2f} %"
    latency = "" if item.latency_ms is None else f"p{item.percentile:g} {item.latency_ms:.0f} ms"
    return (
        item.namespace,
        item.name,
        item.service,
        item.phase,
        f"{item.step}/{len(item.steps)}",
        f"{item.weight} %",
        item.requests,
        success,
        latency,
        f"{output.span(now - item.changed)} ago",
    )
