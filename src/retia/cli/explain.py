"""``retia explain``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from retia.cli import output
from retia.cli.errors import FAILED, CliError, UsageError
from retia.cli.output import Format, Output
from retia.cli.session import Session

if TYPE_CHECKING:
    from retia.api.schema import ExplainRequest, ExplainResult

EXAMPLES = (
    "retia explain --from productpage --to http://reviews:9080/reviews/1",
    "retia explain --from web --to http://reviews:9080/ -H 'end-user: jason' --send",
    "retia explain --from default/web-1 --to tcp://db:5432 -o json",
)


def explain(
    ctx: typer.Context,
    caller: Annotated[
        str,
        typer.Option("--from", metavar="WORKLOAD", help="A workload, a service (any instance) or a gateway."),
    ],
    url: Annotated[
        str, typer.Option("--to", metavar="URL", help="http://HOST:PORT/PATH, https://, tcp:// or tls://.")
    ],
    method: Annotated[str, typer.Option("--request", "-X", metavar="METHOD", help="The method.")] = "GET",
    header: Annotated[
        list[str] | None,
        typer.Option("--header", "-H", metavar="'NAME: VALUE'", help="A header; may be repeated."),
    ] = None,
    send: Annotated[
        bool,
        typer.Option(
            "--send", help="Send it too, from the workload's place, and compare with what was said."
        ),
    ] = False,
    output_format: Output = Format.TABLE,
) -> None:
    """Follow one request through the configuration that the proxies hold, and say why it goes there.

    Shown are listener, filter chain, virtual host, rule (with its object and file) and the rules that lost,
    policies, cluster and endpoints, and what the callee's proxy does. With --send the exit status is 1 when
    the outcome is not as predicted.
    """
    from retia.api.schema import ExplainRequest

    session: Session = ctx.obj
    request = ExplainRequest(workload=caller, url=url, method=method, headers=_headers(header or []))
    with session.client() as client:
        result = client.explain(request)
        if send:
            from retia.cli.sending import send as really_send

            outcome = really_send(session, client, request, result)
    if output_format is not Format.TABLE:
        shown = output.plain(result)
        output.emit(shown | ({"outcome": outcome.plain()} if send else {}), output_format)
    else:
        output.write("\n".join(text(request, result)) + "\n")
        if send:
            output.write("\n" + "\n".join(outcome.lines()) + "\n")
    if send and not outcome.agrees:
        raise typer.Exit(FAILED)
    if not result.hops and not send:
        raise typer.Exit(FAILED)


def text(request: ExplainRequest, result: ExplainResult) -> list[str]:
    """The answer for a person."""
    lines = [f"{request.method} {request.url} from {result.workload or result.proxy}"]
    for hop in result.hops:
        lines += ["", f"{hop.proxy}, {hop.title}:", *(f"  {line}" for line in hop.lines)]
        later = [r.resource for r in hop.resources if r.state == "not asked for"]
        if later:
            lines.append(f"  it would ask for {', '.join(later)}")
    if result.endpoints:
        lines += [
            "",
            "workloads:",
            *(f"  {where} is {who}" for where, who in sorted(result.endpoints.items())),
        ]
    if result.notes:
        lines += ["", *(f"note: {note}" for note in result.notes)]
    if result.hops and not result.certain:
        lines.append(
            "note: this is not certain; see what could not be interpreted or is not acknowledged yet"
        )
    return lines


def _headers(given: list[str]) -> list[tuple[str, str]]:
    found = []
    for each in given:
        name, colon, value = each.partition(":")
        if not colon or not name.strip():
            raise UsageError(f"-H {each!r}: write it as 'NAME: VALUE'")
        if "\r" in value or "\n" in value:
            raise CliError(f"-H {name}: a header has one line")
        found.append((name.strip(), value.strip()))
    return found
