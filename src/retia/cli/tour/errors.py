"""What can go wrong on a tour."""

from __future__ import annotations


class TourError(Exception):
    """The mesh could not be started, asked or ended; the text says what and where to look."""


class Disproved(Exception):  # noqa: N818  a result, not a malfunction
    """A step saw something other than what it asserts; the text says what it saw."""


def expect(true: bool, seen: str) -> None:
    """Raise :class:`Disproved` with what was ``seen`` unless ``true``."""
    if not true:
        raise Disproved(seen)
