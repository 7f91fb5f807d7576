"""Bytes that mustn't be printed.

A secret that is a plain ``bytes`` ends in a log, a traceback with locals or a dump of a dataclass sooner or
later. This type prints as ``[redacted]`` everywhere and refuses to be pickled; whoever really needs the bytes
says so with :meth:`Secret.reveal`, which can be searched for.
"""

from __future__ import annotations

import hmac
from typing import NoReturn


class Secret:
    """Secret bytes. Comparison takes the same time wherever two secrets differ."""

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value = bytes(value)

    def reveal(self) -> bytes:
        """The bytes themselves."""
        return self._value

    def __len__(self) -> int:
        return len(self._value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._value, other._value)

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __repr__(self) -> str:
        return "[redacted]"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret cannot be pickled or copied into another process")

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: object) -> Secret:
        return self
