"""``retia delete``."""

from __future__ import annotations

from typing import Annotated

import typer

from retia.cli import output
from retia.cli.documents import read_documents
from retia.cli.errors import FAILED, UsageError
from retia.cli.output import Format, Output
from retia.cli.session import Session

EXAMPLES = (
    "retia delete virtualservice reviews",
    "retia delete dr ratings -n shop",
    "retia delete -f canary.yaml",
)


def delete(
    ctx: typer.Context,
    kind: Annotated[str | None, typer.Argument(help="The object's kind.")] = None,
    name: Annotated[str | None, typer.Argument(help="The object's name.")] = None,
    namespace: Annotated[
        str | None, typer.Option("--namespace", "-n", help="Its namespace; absent: default.")
    ] = None,
    file: Annotated[
        list[str] | None,
        typer.Option("--file", "-f", metavar="FILE|DIR|-", help="Delete what these files hold."),
    ] = None,
    output_format: Output = Format.TABLE,
) -> None:
    """Delete configuration objects, by name or by the files that made them."""
    if file and (kind or name or namespace):
        raise UsageError("-f and KIND NAME contradict each other; use one of them")
    if not file and not (kind and name):
        raise UsageError("say what to delete: KIND NAME, or -f FILE")
    session: Session = ctx.obj
    with session.client() as client:
        if file:
            results = client.delete_documents(read_documents(file))
        else:
            results = [client.delete_object(kind or "", namespace or "default", name or "")]
    if output_format is not Format.TABLE:
        output.emit(results, output_format)
        return
    for result in results:
        if result.deleted:
            output.write(f"{result.object} deleted\n")
        else:
            output.say(f"{result.object} was not there")
    if not any(result.deleted for result in results):
        raise typer.Exit(FAILED)
