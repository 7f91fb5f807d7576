"""YAML as plain values, with the line of every one of them.

``yaml.safe_load`` forgets lines and lets the last of two equal keys win. Here the node tree is walked once:
the values come out with a table from path to line, and a repeated key is an error.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import yaml

from retia.cli.errors import CliError

Path = tuple[str | int, ...]


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
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        located = Located(None)
        if node is not None:
            problems: list[Problem] = []
            located.value = _value(node, (), located.lines, problems, name)
            if problems:
                raise ProblemsError(problems)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 0
        raise ProblemsError([Problem(name, line, "", f"not YAML: {error.problem}")]) from error
    except yaml.YAMLError as error:
        raise ProblemsError([Problem(name, 0, "", f"not YAML: {error}")]) from error
    except (ValueError, RecursionError, OverflowError) as error:
        raise ProblemsError([Problem(name, 0, "", f"a value cannot be read: {error}")]) from error
    return located


def field_path(path: Path) -> str:
    """``("services", "web", "ports", 0)`` as ``services.web.ports[0]``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f"{'.' if text else ''}{part}"
    return text


def _value(node: yaml.Node, at: Path, lines: dict[Path, int], problems: list[Problem], name: str) -> Any:
    lines[at] = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        result: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            key = _scalar(key_node)
            line = key_node.start_mark.line + 1
            inner = (*at, key if isinstance(key, str) else str(key))
            if key_node.tag == "tag:yaml.org,2002:merge":
                problems.append(Problem(name, line, field_path(at), "merge keys (<<) are not supported"))
                continue
            if key in result:
                problems.append(Problem(name, line, field_path(inner), "the key stands here twice"))
                continue
            result[key] = _value(value_node, inner, lines, problems, name)
            lines[inner] = line
        return result
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, (*at, i), lines, problems, name) for i, item in enumerate(node.value)]
    return _scalar(node)


def _scalar(node: yaml.Node) -> Any:
    loader = yaml.SafeLoader("")
    try:
        value = loader.construct_object(node, deep=True)
        hash(value)
    except TypeError as error:
        raise yaml.MarkedYAMLError(problem="a key is no plain value", problem_mark=node.start_mark) from error
    finally:
        loader.dispose()
    return value
