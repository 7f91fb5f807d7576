"""A mesh file's text as plain values with their lines, and what is wrong with it as one error.

It is read as configuration is (:mod:`retia.config.yaml_text`): ``no`` and ``22:22`` are text, a key that is
given twice is an error.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from retia.cli.errors import CliError
from retia.config import yaml_text
from retia.config.paths import format_path
from retia.config.schema.base import Path


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a file. ``line`` counts from 1; 0: the whole file."""

    path: str
    line: int
    field: str
    message: str

    def __str__(self) -> str:
        where = f"{self.path}:{self.line}" if self.line else self.path
        message = " ".join(self.message.split())
        return f"{where}: {self.field}: {message}" if self.field else f"{where}: {message}"


class ProblemsError(CliError):
    """Everything that is wrong with a file, at once: one line each, below a line that counts them."""

    def __init__(self, problems: list[Problem]) -> None:
        lines = [str(problem) for problem in problems]
        head = f"{len(lines)} errors in the mesh file; nothing was started\n" if len(lines) > 1 else ""
        super().__init__(head + "\n".join(lines))
        self.problems = problems


@dataclass(slots=True)
class Located:
    """A document's value and where its parts stand."""

    value: Any
    lines: dict[Path, int] = field(default_factory=dict)

    def line(self, path: Path) -> int:
        """The line of a part, or of the nearest part around it."""
        while path not in self.lines and path:
            path = path[:-1]
        return self.lines.get(path, 0)


def load(text: str, name: str) -> Located:
    """The one document of ``text``; :class:`ProblemsError` for anything that is not one YAML document."""
    documents = list(yaml_text.read(text))
    if not documents:
        return Located(None)
    if len(documents) > 1 and not documents[0].problems:
        line = documents[1].line
        raise ProblemsError([Problem(name, line, "", "a mesh file is one document; here a second begins")])
    first = documents[0]
    if first.problems:
        raise ProblemsError(
            [Problem(name, each.line, format_path(each.path), each.message) for each in first.problems]
        )
    return Located(first.data, first.lines)
