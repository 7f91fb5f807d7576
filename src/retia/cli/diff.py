"""``retia diff``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from retia.cli import output
from retia.cli.documents import read_documents
from retia.cli.errors import FAILED
from retia.cli.output import Format, Output
from retia.cli.session import Session

if TYPE_CHECKING:
    from retia.api.schema import DiffResult, ProxyDiff

EXAMPLES = (
    "retia diff -f canary.yaml",
    "retia diff -f config/ --full",
    "retia diff -f canary.yaml -o json",
)
_MOST_NAMED = 5


def diff(
    ctx: typer.Context,
    file: Annotated[
        list[str], typer.Option("--file", "-f", metavar="FILE|DIR|-", help="What would be applied.")
    ],
    full: Annotated[bool, typer.Option("--full", help="Show what differs in each resource.")] = False,
    output_format: Output = Format.TABLE,
) -> None:
    """Show what applying files would change in the proxies, resource by resource. Nothing is changed.

    Proxies for which the same changes are shown together. Exit status 1: the files are wrong.
    """
    session: Session = ctx.obj
    documents = read_documents(file)
    with session.client() as client, output.progress("Comparing"):
        result = client.diff(documents, full=full)
    failed = any(f.level == "error" for f in result.findings)
    if output_format is not Format.TABLE:
        output.emit(result, output_format)
    elif not failed:
        output.write(_text(result))
    output.show_findings(result.findings)
    if failed:
        raise typer.Exit(FAILED)


def _text(result: DiffResult) -> str:
    lines = [f"{item.object} {item.action}" for item in result.items]
    if not result.groups:
        lines.append("no proxy would change")
    for group in result.groups:
        lines += ["", *_group(group)]
    if result.groups and result.unchanged:
        lines += [
            "",
            f"{result.unchanged} other prox{'ies' if result.unchanged > 1 else 'y'} would not change",
        ]
    return "\n".join(lines) + "\n"


def _group(group: ProxyDiff) -> list[str]:
    named = group.proxies[:_MOST_NAMED]
    more = len(group.proxies) - len(named)
    lines = [", ".join([*named, *([f"and {more} more"] if more else [])]) + ":"]
    for resource in group.resources:
        by = f" ({', '.join(resource.objects)})" if resource.objects else ""
        lines.append(f"  {resource.action:<8} {resource.resource}{by}")
        lines += [f"      {line}" for line in resource.text.splitlines()]
    return lines
