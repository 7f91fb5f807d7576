"""``${...}`` in a mesh file's commands and environments. Pure.

Variables are filled in when the file is read; addresses of upstreams and own ports when an instance starts,
because they depend on the capture that is then in force.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

_EXPRESSION = re.compile(r"\$(?:(\$)|\{([^{}]*)\})")
_VARIABLE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)
_UPSTREAM = re.compile(r"upstream:([a-z0-9][-a-z0-9.]*):(\d{1,5})")
_PORT = re.compile(r"port:(\d{1,5})")

_LATE = ("upstream:", "port:")


@dataclass(frozen=True, slots=True)
class Used:
    """What some texts ask for."""

    upstreams: tuple[tuple[str, int], ...] = ()
    ports: tuple[int, ...] = ()


def fill_variables(text: str, environ: Mapping[str, str]) -> str:
    """``text`` with its variables filled in; late expressions and ``$$`` stay as they are.

    ValueError for a variable that is not set and has no default, and for what is no expression.
    """

    def replace(match: re.Match[str]) -> str:
        inner = match.group(2)
        if match.group(1) or inner.startswith(_LATE):
            return match.group(0)
        variable = _VARIABLE.fullmatch(inner)
        if variable is None:
            raise ValueError(
                f"${{{inner}}} is no expression; use ${{VARIABLE}}, ${{VARIABLE:-default}}, "
                "${upstream:NAME:PORT} or ${port:PORT}, and $$ for a dollar sign"
            )
        name, default = variable.groups()
        value = environ.get(name) or default if default is not None else environ.get(name)
        if value is None:
            raise ValueError(f"the variable {name} is not set; set it, or write ${{{name}:-default}}")
        return value.replace("$", "$$")

    return _EXPRESSION.sub(replace, text)


def find(texts: Iterable[str]) -> Used:
    """All late expressions in ``texts``, sorted; ValueError for one that is badly written."""
    upstreams: set[tuple[str, int]] = set()
    ports: set[int] = set()

    def upstream(host: str, port: int) -> str:
        upstreams.add((host, port))
        return ""

    def own_port(port: int) -> str:
        ports.add(port)
        return ""

    for text in texts:
        fill_late(text, upstream, own_port)
    return Used(tuple(sorted(upstreams)), tuple(sorted(ports)))


def fill_late(text: str, upstream: Callable[[str, int], str], port: Callable[[int], str]) -> str:
    """``text`` with late expressions and ``$$`` filled in."""

    def replace(match: re.Match[str]) -> str:
        if match.group(1):
            return "$"
        inner = match.group(2)
        found = _UPSTREAM.fullmatch(inner)
        if found is not None and 1 <= int(found.group(2)) <= 65535:
            return upstream(found.group(1), int(found.group(2)))
        found = _PORT.fullmatch(inner)
        if found is not None:
            return port(int(found.group(1)))
        raise ValueError(f"${{{inner}}} is no expression; write ${{upstream:NAME:PORT}} or ${{port:PORT}}")

    return _EXPRESSION.sub(replace, text)
