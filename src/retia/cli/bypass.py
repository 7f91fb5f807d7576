"""``retia bypass``."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from retia.cli import output
from retia.cli.errors import CliError, UsageError
from retia.cli.output import Format, Output
from retia.cli.session import Session

EXAMPLES = (
    "retia bypass default/productpage-v1-1 --for 10m --reason 'INC-42: proxy loops'",
    "retia bypass",
    "retia bypass default/productpage-v1-1 --end",
)
LONGEST_S = 24 * 3600


def bypass(
    ctx: typer.Context,
    workload: Annotated[
        str | None,
        typer.Argument(help="A workload of this host; absent: list those that go around their proxy."),
    ] = None,
    duration: Annotated[
        str, typer.Option("--for", metavar="TIME", help="How long, such as 10m; at most 24h.")
    ] = "",
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; it is logged.")] = "",
    end: Annotated[bool, typer.Option("--end", help="End it now.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Even though services demand mutual TLS: calls to them will fail.")
    ] = False,
    output_format: Output = Format.TABLE,
) -> None:
    """Let a workload's own calls go around its proxy for a while: a way out in an incident.

    They then go in plaintext and without any rule to one instance of each service on this host; calls to
    the workload still come through its proxy. It ends by itself, with or without a controller. Refused
    where the workload is annotated 'retia.dev/bypass: forbidden', or a service demands mutual TLS.
    """
    session: Session = ctx.obj
    if workload is None:
        if duration or end:
            raise UsageError("say which workload")
        _list(session, output_format)
        return
    if bool(duration) == end:
        raise UsageError("give --for TIME to begin, or --end to end it")
    seconds = 0 if end else _seconds(duration)
    if not end and not force:
        _check_callees(session)
    _set(session, workload if "/" in workload else f"default/{workload}", seconds, reason, output_format)


def _set(session: Session, workload: str, seconds: int, reason: str, output_format: Format) -> None:
    from retia.api.local import Bypass, Bypassed

    with session.agent() as agent:
        item = agent.call(Bypass(workload=workload, seconds=seconds, reason=reason), Bypassed)
    if output_format is not Format.TABLE:
        output.emit(item, output_format)
    elif item.until:
        output.write(f"{workload} goes around its proxy, until {_when(item.until)}\n")
    else:
        output.write(f"{workload} uses its proxy\n")


def _list(session: Session, output_format: Format) -> None:
    from retia.api.local import WorkloadList, Workloads

    with session.agent() as agent:
        found = [w for w in agent.call(Workloads(), WorkloadList).workloads if w.bypass_until]
    if output_format is Format.TABLE and not found:
        output.say("every workload of this host uses its proxy")
        return
    rows = [(w.id, output.until(w.bypass_until, time.time()), w.bypass_reason) for w in found]
    output.emit(found, output_format, ("WORKLOAD", "ENDS", "REASON"), rows)


def _check_callees(session: Session) -> None:
    """Services that demand mutual TLS would refuse every call. Without a controller nobody can say."""
    from retia.api.client import ClientError

    try:
        with session.client() as client:
            strict = [s.host for s in client.list_services() if s.mtls == "strict"]
    except ClientError as error:
        output.say(f"whether services demand mutual TLS is not known: {error}")
        return
    if strict:
        shown = ", ".join(strict[:5]) + (f" and {len(strict) - 5} more" if len(strict) > 5 else "")
        raise CliError(
            f"refused: {shown} demand mutual TLS (STRICT), and calls around the proxy are plaintext; with "
            "--force calls to them fail while it lasts"
        )


def _seconds(text: str) -> int:
    from retia.config.duration import Duration

    try:
        seconds = float(Duration.parse(text))
    except ValueError as error:
        raise UsageError(f"--for {text!r}: {error}") from error
    if not 1 <= seconds <= LONGEST_S:
        raise UsageError(f"--for {text!r}: it must be 1s to 24h")
    return round(seconds)


def _when(moment: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(moment))
