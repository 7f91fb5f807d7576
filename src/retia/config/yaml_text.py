"""YAML text as plain data that knows its lines.

PyYAML's own loaders build Python objects and forget where they stood, follow aliases without bound, let a
duplicate key win silently and take ``2024-01-01`` for a date. So its parser's events are read here instead,
into dicts, lists and JSON's atoms, with the line of every field beside them. Scalars are read as by YAML
1.2's core schema (``yes`` and ``on`` are text), keys are always text, as Kubernetes reads both.

On a syntax error the documents before it stand and the rest of the text is given up, since nobody can tell
where the next document begins in a broken text.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from retia.config.codes import Code
from retia.config.scalars import read_atom
from retia.config.schema.base import Path

MAX_SOURCE_CHARS = 32 * 1024 * 1024
"""Arbitrary: a mesh of 10,000 services in one file needs about a third of it."""
MAX_NODES = 200_000
"""Fields and items of one document with its aliases expanded (arbitrary; etcd takes 1.5 MiB)."""
MAX_DEPTH = 64
"""Levels of nesting; the deepest field of any kind is at 12."""

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAG = "tag:yaml.org,2002:"


@dataclass(frozen=True, slots=True)
class TextProblem:
    """Something wrong with the text itself, at a line."""

    code: Code
    message: str
    line: int
    path: Path = ()


@dataclass(slots=True)
class TextDocument:
    """One document: its data, the line of each path, what is wrong with it."""

    line: int
    data: Any = None
    lines: dict[Path, int] = field(default_factory=dict)
    problems: list[TextProblem] = field(default_factory=list)
    nodes: int = 0
    """Fields and items, aliases expanded."""

    def line_of(self, path: Path) -> int:
        """The line of a field, or of the nearest one that contains it."""
        for end in range(len(path), -1, -1):
            if (line := self.lines.get(path[:end])) is not None:
                return line
        return self.line


class _StopError(Exception):
    """The document, or the whole text, cannot be read on."""

    def __init__(self, problem: TextProblem) -> None:
        super().__init__(problem.message)
        self.problem = problem


def read(text: str) -> Iterator[TextDocument]:
    """The documents of ``text``, empty ones left out. Never raises."""
    if len(text) > MAX_SOURCE_CHARS:
        message = f"the text has {len(text)} characters; at most {MAX_SOURCE_CHARS} are read"
        yield _broken(TextProblem(Code.LIMIT, message, 1))
        return
    left = len(text) + MAX_NODES  # No text without aliases has more nodes than characters.
    try:
        events = yaml.parse(text, Loader=_LOADER)
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                document = _read_document(events, _line(event))
                left -= document.nodes
                if document.data is not None or document.problems:
                    yield document
                if left < 0:
                    message = f"the text has over {len(text) + MAX_NODES} fields and items, aliases expanded"
                    raise _StopError(TextProblem(Code.LIMIT, message, _line(event)))
    except _StopError as stop:
        yield _broken(stop.problem)
    except (yaml.YAMLError, UnicodeError, ValueError) as error:
        yield _broken(_syntax(error))


def _broken(problem: TextProblem) -> TextDocument:
    return TextDocument(problem.line, None, {}, [problem])


def _syntax(error: Exception) -> TextProblem:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    said = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    where = f" (column {mark.column + 1})" if mark else ""
    message = f"this is not YAML: {' '.join(str(said).split())}{where}"
    return TextProblem(Code.SYNTAX, message, mark.line + 1 if mark else 1)


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


def _read_document(events: Iterator[Any], line: int) -> TextDocument:
    root = _Tree(events).node(next(events), 0)
    next(events)  # the document's end
    document = TextDocument(root.line if root else line)
    if root is not None:
        builder = _Builder(document)
        try:
            document.data = builder.build(root, ())
        except _StopError as stop:
            document.data = None
            document.problems.append(stop.problem)
    return document


@dataclass(slots=True)
class _Node:
    """A node of YAML's own graph: ``scalar``, ``items`` or ``pairs`` (key and value nodes)."""

    line: int
    scalar: Any = None
    items: list[_Node] | None = None
    pairs: list[tuple[_Node, _Node]] | None = None


class _Tree:
    """Events as nodes, aliases as shared nodes."""

    def __init__(self, events: Iterator[Any]) -> None:
        self._events = events
        self._anchors: dict[str, _Node] = {}

    def node(self, event: Any, depth: int) -> _Node | None:
        line = _line(event)
        if depth > MAX_DEPTH:
            raise _StopError(TextProblem(Code.LIMIT, f"is nested over {MAX_DEPTH} levels deep", line))
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self._anchors:
                raise _StopError(TextProblem(Code.SYNTAX, f"the alias *{event.anchor} has no anchor", line))
            return self._anchors[event.anchor]
        node = _Node(line)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        if isinstance(event, yaml.ScalarEvent):
            node.scalar = event
        elif isinstance(event, yaml.SequenceStartEvent):
            node.items = []
            while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
                node.items.append(self._child(event, depth))
        else:
            node.pairs = []
            while not isinstance(event := next(self._events), yaml.MappingEndEvent):
                key = self._child(event, depth)
                node.pairs.append((key, self._child(next(self._events), depth)))
        return node

    def _child(self, event: Any, depth: int) -> _Node:
        child = self.node(event, depth + 1)
        assert child is not None
        return child


class _Builder:
    """Nodes as plain data, aliases expanded."""

    def __init__(self, document: TextDocument) -> None:
        self._document = document
        self._merges = 0

    def build(self, node: _Node, path: Path) -> Any:
        self._document.nodes += 1
        if self._document.nodes > MAX_NODES:
            message = f"has over {MAX_NODES} fields and items, aliases expanded"
            raise _StopError(TextProblem(Code.LIMIT, message, self._document.line))
        if len(path) + self._merges > MAX_DEPTH:
            message = f"is nested over {MAX_DEPTH} levels deep, aliases expanded"
            raise _StopError(TextProblem(Code.LIMIT, message, node.line))
        self._document.lines.setdefault(path, node.line)
        if node.items is not None:
            return [self.build(item, (*path, index)) for index, item in enumerate(node.items)]
        if node.pairs is not None:
            return self._mapping(node, path)
        return self._scalar(node, path)

    def _mapping(self, node: _Node, path: Path) -> dict[str, Any]:
        result: dict[str, Any] = {}
        merged: list[_Node] = []
        for key_node, value in node.pairs or ():
            if key_node.scalar is None:
                self._problem(Code.SYNTAX, "has a key that is no text", key_node.line, path)
            elif _is_merge(key_node.scalar):
                merged.append(value)
            elif (key := str(key_node.scalar.value)) in result:
                where = self._document.lines[(*path, key)]
                message = f"is given twice; the first is in line {where}"
                self._problem(Code.DUPLICATE_KEY, message, key_node.line, (*path, key))
            else:
                self._document.lines[(*path, key)] = key_node.line
                result[key] = self.build(value, (*path, key))
        for value in merged:
            self._merge(value, path, result)
        return result

    def _merge(self, node: _Node, path: Path, result: dict[str, Any]) -> None:
        """YAML 1.1's ``<<``: the keys of other mappings, where they are not given."""
        for source in node.items if node.items is not None else [node]:
            if source.pairs is None:
                self._problem(Code.SYNTAX, "has << with something that is no mapping", source.line, path)
                continue
            for key, value in self._detached(source, path).items():
                result.setdefault(key, value)

    def _detached(self, source: _Node, path: Path) -> dict[str, Any]:
        lines = self._document.lines
        self._document.lines = {}
        self._merges += 1
        try:
            built: dict[str, Any] = self.build(source, path)
        finally:
            self._merges -= 1
            inner, self._document.lines = self._document.lines, lines
        for where, line in inner.items():
            lines.setdefault(where, line)
        return built

    def _scalar(self, node: _Node, path: Path) -> Any:
        event = node.scalar
        text = str(event.value)
        tag = event.tag.removeprefix(_TAG) if event.tag and event.tag != "!" else ""
        if tag == "str" or event.tag == "!" or (not tag and not event.implicit[0]):
            return text
        if tag not in ("", "null", "bool", "int", "float"):
            self._problem(Code.SYNTAX, f"has the tag {event.tag}, which is not read here", node.line, path)
            return text
        try:
            return read_atom(text)
        except ValueError:
            self._problem(Code.LIMIT, "is a number that is too long", node.line, path)
            return None

    def _problem(self, code: Code, message: str, line: int, path: Path) -> None:
        self._document.problems.append(TextProblem(code, message, line, path))


def _is_merge(event: Any) -> bool:
    return event.value == "<<" and bool(event.implicit[0])
