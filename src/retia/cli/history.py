"""``retia history``."""

from __future__ import annotations

import difflib
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from retia.cli import output
from retia.cli.errors import UsageError
from retia.cli.output import Format, Output
from retia.cli.session import Session

if TYPE_CHECKING:
    from retia.api.schema import HistoryChange, HistoryEntry

EXAMPLES = (
    "retia history",
    "retia history vs reviews -n shop",
    "retia history --revision 12",
    "retia history --limit 100 -o json",
)


def history(
    ctx: typer.Context,
    kind: Annotated[str | None, typer.Argument(help="A kind; absent: every object.")] = None,
    name: Annotated[str | None, typer.Argument(help="One object of the kind.")] = None,
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="The object's namespace.")] = "default",
    revision: Annotated[
        int, typer.Option("--revision", min=0, help="One write, with what differs.", show_default=False)
    ] = 0,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="The most to show.")] = 20,
    output_format: Output = Format.TABLE,
) -> None:
    """Show what was changed, when and why; the newest first.

    For one object, or one revision, what differs is shown as well. The last 500 writes are remembered.
    """
    if kind is not None and name is None:
        raise UsageError("give a name with the kind, or neither")
    session: Session = ctx.obj
    with session.client() as client:
        entries = client.history(kind or "", namespace, name or "", revision=revision, limit=limit)
    if output_format is not Format.TABLE:
        output.emit(entries, output_format)
    elif not entries:
        output.say("nothing is remembered" + (f" of {kind} {name}" if kind else ""))
    elif kind is not None or revision:
        output.write("\n".join(_whole(entry) for entry in entries))
    else:
        rows = [(e.revision, _when(e.time), _changes(e), e.reason) for e in entries]
        output.table(("REVISION", "TIME", "CHANGES", "REASON"), rows)


def _when(moment: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))


def _changes(entry: HistoryEntry) -> str:
    shown = [f"{change.object} {change.action}" for change in entry.changes[:3]]
    more = len(entry.changes) - len(shown)
    return ", ".join([*shown, *([f"and {more} more"] if more else [])])


def _whole(entry: HistoryEntry) -> str:
    head = f"revision {entry.revision}, {_when(entry.time)}" + (f": {entry.reason}" if entry.reason else "")
    return "\n".join([head, *(_difference(change) for change in entry.changes)])


def _difference(change: HistoryChange) -> str:
    head = f"{change.object} {change.action}\n"
    lines = difflib.unified_diff(
        _lines(change.before), _lines(change.after), "before", "after", n=3, lineterm=""
    )
    return head + "".join(f"  {line}\n" for line in lines)


def _lines(document: dict[str, Any] | None) -> list[str]:
    return output.to_yaml(document).splitlines() if document is not None else []
