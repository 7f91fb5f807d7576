"""Durations as Istio writes them: ``1h30m``, ``2.5s``, ``100ms``.

The grammar is that of Go's ``time.ParseDuration``: an optional sign, then numbers with a unit each, largest
first by custom only; ``0`` needs no unit. A bare number is refused, because nobody can tell seconds from
milliseconds.
"""

from __future__ import annotations

import re
from typing import Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

_UNITS_NS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
_PART = re.compile(r"([0-9]{1,18})?(?:\.([0-9]{0,18}))?(ns|us|µs|μs|ms|s|m|h)", re.ASCII)
_LONGEST_NS = 2**63 - 1
"""About 292 years: what an int64 of nanoseconds holds, in Go and so in Istio."""


class Duration(float):
    """A length of time in seconds."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Duration:
        """The duration that ``text`` says, negative ones included.

        Raises ``ValueError`` with the rule as its message.
        """
        sign, rest = (-1, text[1:]) if text[:1] == "-" else (1, text.removeprefix("+"))
        if rest == "0":
            return cls(0.0)
        total_ns, position = 0, 0
        while position < len(rest):
            part = _PART.match(rest, position)
            if part is None or not (part[1] or part[2]):
                break
            unit_ns, fraction = _UNITS_NS[part[3]], part[2] or ""
            total_ns += int(part[1] or 0) * unit_ns + int(fraction or 0) * unit_ns // 10 ** len(fraction)
            position = part.end()
        if not rest or position < len(rest):
            raise ValueError("must be a duration with a unit, such as 100ms, 2.5s, 1m or 1h30m")
        if total_ns > _LONGEST_NS:
            raise ValueError("must be shorter than 292 years")
        return cls(sign * total_ns / 10**9)

    @property
    def nanoseconds(self) -> int:
        """The whole number of nanoseconds; exact for what was written with at most microseconds."""
        return round(self * 10**9)

    def __str__(self) -> str:
        if not self:
            return "0s"
        ns = self.nanoseconds
        for unit in ("h", "m", "s", "ms", "us"):
            if ns % _UNITS_NS[unit] == 0:
                return f"{ns // _UNITS_NS[unit]}{unit}"
        return f"{ns}ns"

    def __repr__(self) -> str:
        return f"Duration({float(self)!r})"

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls._validate, serialization=core_schema.to_string_ser_schema()
        )

    @classmethod
    def _validate(cls, value: Any) -> Duration:
        if isinstance(value, Duration):
            return value
        if isinstance(value, str):
            return cls.parse(value)
        if isinstance(value, float):
            raise ValueError("must be text with a unit, such as 2.5s")
        raise ValueError("must be a duration with a unit, such as 100ms, 2.5s, 1m or 1h30m")
