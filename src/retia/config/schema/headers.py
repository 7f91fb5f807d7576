"""Header manipulation: set, add, remove, on requests and responses."""

from __future__ import annotations

from collections.abc import Iterator

from retia.config.codes import Code
from retia.config.schema.base import FrozenMap, Model, Path, Problem
from retia.config.schema.types import HeaderValue, Text, is_header_name

_AUTHORITY = ("host", ":authority")


class HeaderOperations(Model):
    """What is done to the headers of one message. ``set`` overwrites, ``add`` appends."""

    set: FrozenMap[Text, HeaderValue] = ()
    add: FrozenMap[Text, HeaderValue] = ()
    remove: tuple[Text, ...] = ()


class Headers(Model):
    """Header manipulation of a rule or of one destination of it."""

    request: HeaderOperations | None = None
    response: HeaderOperations | None = None

    def problems(self) -> Iterator[Problem]:
        if self.request:
            yield from _operations(self.request, "request", authority=True)
        if self.response:
            yield from _operations(self.response, "response", authority=False)

    @property
    def authorities(self) -> tuple[str, ...]:
        """The values given to the request's authority."""
        if not self.request:
            return ()
        pairs = self.request.set + self.request.add
        return tuple(value for name, value in pairs if name.lower() in _AUTHORITY)


def _operations(operations: HeaderOperations, side: str, *, authority: bool) -> Iterator[Problem]:
    for action, pairs in (("set", operations.set), ("add", operations.add)):
        for name, _ in pairs:
            yield from _name(name, (side, action, name), authority=authority)
    for index, name in enumerate(operations.remove):
        yield from _name(name, (side, "remove", index), authority=False)


def _name(name: str, path: Path, *, authority: bool) -> Iterator[Problem]:
    if name.lower() in _AUTHORITY:
        if not authority:
            yield Problem(path, f"names {name}, which can be set and added on requests only", Code.BAD_VALUE)
    elif name.startswith(":"):
        yield Problem(path, f"names {name}; headers that start with : cannot be changed", Code.BAD_VALUE)
    elif not is_header_name(name):
        yield Problem(path, f"names {name!r}, which is no header's name", Code.BAD_VALUE)
