"""Rendering: data on stdout, messages on stderr, the same facts as a table, as JSON or as YAML.

Tables are plain columns without frames: on a terminal coloured by state, elsewhere without colours and never
cut off, so that ``grep`` and ``awk`` see whole values.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from retia.cli.errors import ClosedPipeError

if TYPE_CHECKING:
    from pydantic import BaseModel

    from retia.api.schema import Finding


class Format(StrEnum):
    TABLE = "table"
    YAML = "yaml"
    JSON = "json"


Output = Annotated[Format, typer.Option("--output", "-o", help="How to print the result.")]
Namespace = Annotated[
    str | None, typer.Option("--namespace", "-n", help="Only this namespace.", show_default=False)
]

GOOD = frozenset({"ready", "valid", "synced", "running", "yes", "healthy", "acked", "connected", "strict"})
POOR = frozenset({"starting", "draining", "pending", "held", "stale", "permissive", "unhealthy", "stopping"})
BAD = frozenset({"failed", "lost", "lapsed", "nacked", "quarantined", "no", "down", "error", "disable"})


def plain(value: Any) -> Any:
    """Models as dictionaries, through lists."""
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    return value


def emit(data: Any, output: Format, columns: Sequence[str] = (), rows: Sequence[Sequence[Any]] = ()) -> None:
    """Prints ``data`` as JSON or YAML, or ``rows`` under ``columns``."""
    if output is Format.JSON:
        write(json.dumps(plain(data), indent=2, sort_keys=False) + "\n")
    elif output is Format.YAML:
        write(to_yaml(plain(data)))
    else:
        table(columns, rows)


def to_yaml(data: Any) -> str:
    import yaml

    return yaml.safe_dump(data, sort_keys=False, default_flow_style=False, width=110)


def to_yaml_documents(documents: Sequence[Any]) -> str:
    return "---\n".join(to_yaml(document) for document in documents)


def write(text: str) -> None:
    """To stdout, at once; a closed pipe ends the command quietly (see ``main``)."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError as error:
        # What Python has buffered would fail once more at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise ClosedPipeError from error


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Left-aligned columns as wide as their widest cell."""
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(len(c), *(len(row[i]) for row in cells), 0) for i, c in enumerate(columns)]
    coloured = sys.stdout.isatty()
    lines = [_line(columns, widths)]
    if coloured:
        lines[0] = f"\x1b[1m{lines[0]}\x1b[0m"
    lines += [_line(row, widths, coloured) for row in cells]
    write("\n".join(lines) + "\n")


def _line(cells: Sequence[str], widths: Sequence[int], coloured: bool = False) -> str:
    padded = [cell.ljust(width) for cell, width in zip(cells, widths, strict=True)]
    if coloured:
        padded = [_coloured(text, cell) for text, cell in zip(padded, cells, strict=True)]
    return "  ".join(padded).rstrip()


def _coloured(text: str, cell: str) -> str:
    word = cell.split(" ", 1)[0]
    code = "32" if word in GOOD else "33" if word in POOR else "31" if word in BAD else ""
    return f"\x1b[{code}m{text}\x1b[0m" if code else text


def _cell(value: Any) -> str:
    if value is True or value is False:
        return "yes" if value else "no"
    text = "" if value is None else str(value)
    return text.replace("\n", " ") or "-"


def say(message: str) -> None:
    """A message for a person, on stderr."""
    sys.stderr.write(f"{message}\n")
    sys.stderr.flush()


SHOWN_FINDINGS = 100
"""How many findings a person is shown at once. Arbitrary: a few screens."""


def show_findings(findings: Sequence[Finding]) -> None:
    """Findings on stderr, one line each, errors first; of very many the first ones and how many there are."""
    order = {"error": 0, "warning": 1, "info": 2}
    for finding in sorted(findings, key=lambda f: order[f.level])[:SHOWN_FINDINGS]:
        say(f"{finding.level}: {finding}")
    if len(findings) > SHOWN_FINDINGS:
        say(f"and {len(findings) - SHOWN_FINDINGS} more findings")


@contextlib.contextmanager
def progress(message: str) -> Iterator[None]:
    """Shows that something is under way: a spinner on a terminal, otherwise one line if it takes a second."""
    if sys.stderr.isatty():
        from rich.console import Console

        with Console(stderr=True).status(message):
            yield
        return
    started = time.monotonic()
    yield
    if time.monotonic() - started > 1.0:
        say(f"{message} ({time.monotonic() - started:.1f} s)")


def size(size_bytes: float) -> str:
    """``12.3 MB``; empty for 0, which means unknown."""
    if not size_bytes:
        return ""
    value = float(size_bytes)
    for unit in ("B", "KB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return ""


def span(seconds: float) -> str:
    """A span of time in its two largest units: ``3d4h``, ``2h5m``, ``45s``."""
    whole = int(seconds)
    sign = "-" if whole < 0 else ""
    whole = abs(whole)
    parts: list[str] = []
    for unit, length in (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)):
        if whole >= length or (unit == "s" and not parts):
            parts.append(f"{whole // length}{unit}")
            whole %= length
        if len(parts) == 2:
            break
    return sign + "".join(parts)


def until(moment: float, now: float) -> str:
    """How long until ``moment``: ``in 23h59m``, ``2m ago``; empty for 0, which means unknown."""
    if not moment:
        return ""
    return f"in {span(moment - now)}" if moment >= now else f"{span(now - moment)} ago"


def labels(pairs: dict[str, str]) -> str:
    return ",".join(f"{k}={v}" for k, v in sorted(pairs.items()))


def dump(model: BaseModel) -> Any:
    return model.model_dump(mode="json")
