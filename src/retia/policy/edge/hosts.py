"""Hosts that may have a wildcard, compared."""

from __future__ import annotations


def intersection(one: str, other: str) -> str:
    """The narrower of two hosts where one covers the other; empty: they have nothing in common.

    ``*.example.com`` covers ``a.example.com``, ``a.b.example.com`` and ``*.b.example.com``, not
    ``example.com``; ``*`` covers everything.
    """
    if covers(one, other):
        return other
    return one if covers(other, one) else ""


def covers(wide: str, narrow: str) -> bool:
    """Whether every name that ``narrow`` means is meant by ``wide`` as well."""
    if wide in ("*", narrow):
        return True
    if not wide.startswith("*."):
        return False
    return narrow != "*" and narrow.endswith(wide[1:]) and len(narrow) > len(wide) - 1
