"""``retia apply``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from retia.cli import output
from retia.cli.documents import read_documents
from retia.cli.errors import FAILED, UsageError
from retia.cli.output import Format, Output
from retia.cli.session import Session

if TYPE_CHECKING:
    from retia.api.schema import ApplyResult, Finding

EXAMPLES = (
    "retia apply -f canary.yaml",
    "retia apply -f config/ --dry-run",
    "retia apply -f shop/ --owner shop --prune",
    "generate | retia apply -f - -o json",
)


def apply(
    ctx: typer.Context,
    file: Annotated[
        list[str], typer.Option("--file", "-f", metavar="FILE|DIR|-", help="What to apply; may be repeated.")
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check and compare only; store nothing.")
    ] = False,
    owner: Annotated[
        str,
        typer.Option(
            "--owner",
            metavar="NAME",
            help="On whose behalf: these objects are then touched by no other owner.",
        ),
    ] = "",
    prune: Annotated[
        bool, typer.Option("--prune", help="Delete the owner's objects that are in none of the files.")
    ] = False,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Remembered in the history.")] = "",
    output_format: Output = Format.TABLE,
) -> None:
    """Apply configuration: all objects of all files, or none of them.

    Every error of every file is reported at once. A document with metadata.resourceVersion is refused if
    the object has changed since. Exit status 1: something was wrong and nothing was stored.
    """
    if prune and not owner:
        raise UsageError("--prune needs --owner NAME: only the objects of one owner are pruned")
    session: Session = ctx.obj
    documents = read_documents(file)
    with session.client() as client, output.progress("Applying"):
        result = client.apply(documents, dry_run=dry_run, owner=owner, prune=prune, reason=reason)
    show(result, output_format, dry_run=dry_run)


def show(result: ApplyResult, output_format: Format, *, dry_run: bool) -> None:
    """What became of each object, and the findings; ends the command where nothing was stored."""
    failed = any(f.level == "error" for f in result.findings)
    if output_format is not Format.TABLE:
        output.emit(result, output_format)
    elif not failed:
        suffix = " (dry run)" if dry_run else ""
        output.write("".join(f"{item.object} {item.action}{suffix}\n" for item in result.items))
    output.show_findings(result.findings)
    if failed:
        output.say(f"nothing was applied: {_count(result.findings)}")
        raise typer.Exit(FAILED)


def _count(findings: list[Finding]) -> str:
    errors = sum(f.level == "error" for f in findings)
    return f"{errors} error{'s' if errors != 1 else ''}"
