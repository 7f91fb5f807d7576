"""``retia undo``."""

from __future__ import annotations

from typing import Annotated

import typer

from retia.cli import output
from retia.cli.apply import show
from retia.cli.output import Format, Output
from retia.cli.session import Session

EXAMPLES = (
    "retia undo",
    "retia undo 12",
    "retia undo --dry-run",
)


def undo(
    ctx: typer.Context,
    revision: Annotated[
        int, typer.Argument(min=0, help="The write to take back; absent: the last one.", show_default=False)
    ] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would become of it.")] = False,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Remembered in the history.")] = "",
    output_format: Output = Format.TABLE,
) -> None:
    """Take one write back: every object of it becomes what it was before.

    It is a write of its own, so a second undo brings the first one's changes back. Refused if one of the
    objects has changed since; nothing is then changed. 'retia history' lists the writes.
    """
    session: Session = ctx.obj
    with session.client() as client, output.progress("Taking back"):
        result = client.undo(revision, dry_run=dry_run, reason=reason)
    show(result, output_format, dry_run=dry_run)
