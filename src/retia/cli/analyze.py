"""``retia analyze``."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from retia.cli import output
from retia.cli.documents import read_documents
from retia.cli.errors import FAILED, UsageError
from retia.cli.output import Format, Output
from retia.cli.session import Session

if TYPE_CHECKING:
    from retia.api.schema import Document, Finding

EXAMPLES = (
    "retia analyze",
    "retia analyze -f config/ --fail-on warning",
    "retia analyze -f canary.yaml --live",
    "retia analyze -f config/ --schema-only -o json",
)


class FailOn(StrEnum):
    """The least level for which the command fails."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"
    NEVER = "never"


_LEVELS = ("info", "warning", "error")


def analyze(
    ctx: typer.Context,
    file: Annotated[
        list[str] | None,
        typer.Option("--file", "-f", metavar="FILE|DIR|-", help="What to judge; absent: the running mesh."),
    ] = None,
    live: Annotated[
        bool, typer.Option("--live", help="Judge the files as if they were applied to the running mesh.")
    ] = False,
    schema_only: Annotated[
        bool, typer.Option("--schema-only", help="Judge each document alone, without its surroundings.")
    ] = False,
    fail_on: Annotated[
        FailOn, typer.Option("--fail-on", help="The least level for which the exit status is 1.")
    ] = FailOn.ERROR,
    output_format: Output = Format.TABLE,
) -> None:
    """Say what is wrong with configuration: where, what it means, what to do.

    Files alone are judged without a mesh; services that 'retia run' makes are then not known, and names of
    the mesh are taken to exist. 'retia why CODE' explains a code.
    """
    if schema_only and live:
        raise UsageError("--schema-only and --live contradict each other; use one of them")
    if (schema_only or live) and not file:
        raise UsageError(f"--{'live' if live else 'schema-only'} needs -f: what is to be judged?")
    session: Session = ctx.obj
    documents = read_documents(file) if file else []
    if documents and not live:
        findings = _alone(documents, schema_only)
    else:
        with session.client() as client, output.progress("Analysing"):
            findings = client.analyze(documents)
    if output_format is Format.TABLE:
        _show(findings)
    else:
        output.emit(findings, output_format)
    if fails(findings, fail_on):
        raise typer.Exit(FAILED)


def fails(findings: Sequence[Finding], fail_on: FailOn) -> bool:
    """Whether one is at the level or above."""
    if fail_on is FailOn.NEVER:
        return False
    least = _LEVELS.index(fail_on.value)
    return any(_LEVELS.index(f.level) >= least for f in findings)


def _alone(documents: Sequence[Document], schema_only: bool) -> list[Finding]:
    from retia.analysis.files import judge
    from retia.api import schema
    from retia.config.parse import SourceText

    found = judge([SourceText(d.path, d.text) for d in documents], schema_only=schema_only)
    return [
        schema.Finding(
            code=f.code,
            level=f.level.value,
            message=f.message,
            object=str(f.ref or ""),
            field=f.field,
            path=f.origin.path,
            line=f.origin.line,
            remedy=f.remedy,
        )
        for f in found
    ]


def _show(findings: Sequence[Finding]) -> None:
    """One line for each finding on stdout, effect and remedy below it; a count at the end."""
    from retia.analysis.catalogue import CATALOGUE

    lines: list[str] = []
    for each in findings:
        where = f"{each.path}:{each.line}: " if each.path else ""
        what = " ".join(part for part in (each.object, each.field) if part)
        lines.append(f"{where}{each.level} {each.code} {what}: {each.message}")
        entry = CATALOGUE.get(each.code)
        if entry is not None:
            lines.append(f"    effect: {entry.effect}")
        remedy = each.remedy or (entry.remedy if entry is not None else "")
        if remedy:
            lines.append(f"    remedy: {remedy}")
    output.write("".join(f"{line}\n" for line in lines))
    counts = [f"{n} {level}{'s' if n != 1 and level != 'info' else ''}" for level, n in _counted(findings)]
    output.say(", ".join(counts) or "nothing is wrong")


def _counted(findings: Sequence[Finding]) -> list[tuple[str, int]]:
    counts = [(level, sum(f.level == level for f in findings)) for level in reversed(_LEVELS)]
    return [(level, count) for level, count in counts if count]
