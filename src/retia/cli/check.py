"""``retia check``: the front door. Is all well; if not, why, and what to do."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import typer

from retia.cli import output
from retia.cli.errors import FAILED
from retia.cli.output import Format, Output
from retia.cli.session import Session

if TYPE_CHECKING:
    from retia.cli.checks import Result, Scene

EXAMPLES = (
    "retia check",
    "retia check -o json",
    "retia --home /srv/mesh check",
)

_MARKS = {"ok": ("✓", 32), "warning": ("!", 33), "failed": ("✗", 31), "skipped": ("-", 0)}


def check(ctx: typer.Context, output_format: Output = Format.TABLE) -> None:
    """Check this machine and the mesh on it, from the environment to the configuration.

    It works with nothing running as well. Exit status 0: all well, warnings included; 1: something is wrong,
    with the reason and what to do.
    """
    from retia.cli.checks.fetch import fetch

    session: Session = ctx.obj
    with output.progress("Looking around"):
        scene = fetch(session)
        results = [result for category in _categories() for result in category(scene)]
    failed = sum(result.verdict == "failed" for result in results)
    if output_format is Format.TABLE:
        output.write(render(results, sys.stdout.isatty()))
    else:
        facts = [{name: str(getattr(r, name)) for name in r.__slots__} for r in results]
        output.emit({"ok": not failed, "results": facts}, output_format)
    if failed:
        raise typer.Exit(FAILED)


def _categories() -> Iterable[Callable[[Scene], Iterable[Result]]]:
    from retia.cli.checks import capture, environment, running

    return (
        environment.check,
        capture.check,
        running.controller,
        running.agent,
        running.identity,
        running.proxies,
        running.configuration,
    )


def render(results: list[Result], coloured: bool) -> str:
    """One block for a category, one line for a result, its remedy below it, a verdict at the end."""
    lines: list[str] = []
    category = ""
    for result in results:
        if result.category != category:
            category = result.category
            lines += ["", category] if lines else [category]
        mark, colour = _MARKS[result.verdict]
        shown = f"\x1b[{colour}m{mark}\x1b[0m" if coloured and colour else mark
        reason = " ".join(result.reason.split())
        lines.append(f"  {shown} {result.name}" + (f": {reason}" if reason else ""))
        if result.remedy:
            lines.append(f"      -> {result.remedy}")
    failed = sum(r.verdict == "failed" for r in results)
    warnings = sum(r.verdict == "warning" for r in results)
    verdict = f"{failed} failed" if failed else "all well"
    lines += ["", f"{verdict}, {warnings} warning{'s' if warnings != 1 else ''}"]
    return "\n".join(lines) + "\n"
