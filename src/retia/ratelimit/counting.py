"""How hits are counted: a window that slides.

A counter holds how many hits came in this window and in the one before (windows begin at multiples of their
length since 1970). The hits of the window before weigh as much as of it still lies within the last
``window_s`` seconds, as if they had come evenly. So a limit of 100 a minute never lets much more than 100
through in any 60 seconds, which counting from zero at each full minute would, for two numbers a counter.

A refused hit is not counted: who keeps asking is let through as soon as there is room. If one of several
limits of a request refuses, none of them counts it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from retia.model.limit import Counted


@dataclass(frozen=True, slots=True)
class Hit:
    """``amount`` more for the counter of a limit with these values."""

    limit: Counted
    values: tuple[str, ...] = ()
    amount: int = 1

    @property
    def counter(self) -> str:
        """The counter's name. The length of the window is a part of it, for another one counts otherwise."""
        parts = (self.limit.name, str(self.limit.window_s), *(_escaped(value) for value in self.values))
        return "|".join(parts)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a counter says to a hit."""

    over: bool
    """There was no room for it; of a limit in shadow as well."""
    remaining: int
    """How many more would be let through now."""
    reset_s: int
    """Until there is room again, as a whole number of seconds: at least 1 where there is none."""


class StoreError(Exception):
    """Counters can't be reached; one sentence."""


class Store(Protocol):
    """Keeps counters."""

    async def take(self, hits: Sequence[Hit]) -> tuple[Verdict, ...]:
        """Count the hits of one request, all or none. Raises :class:`StoreError`."""

    async def close(self) -> None:
        """Let go of connections."""


def level(current: int, before: int, now: float, window_s: int) -> float:
    """How many hits lie in the last ``window_s`` seconds."""
    share_left = 1.0 - (now % window_s) / window_s
    return current + before * share_left


def verdict(
    limit: Counted, current: int, before: int, amount: int, now: float, *, over: bool | None = None
) -> Verdict:
    """What a counter with those numbers says to ``amount`` more; ``over``: as the store has decided."""
    used = level(current, before, now, limit.window_s)
    if over is None:
        over = used + amount > limit.amount
    remaining = max(0, int(limit.amount - used - (0 if over else amount)))
    return Verdict(over, remaining, _reset(limit, current + (0 if over else amount), before, now))


def _reset(limit: Counted, current: int, before: int, now: float) -> int:
    """When one more is let through: at the earliest now, at the latest when both windows are past."""
    window_s = limit.window_s
    passed = now % window_s
    left = window_s - passed
    room = limit.amount - 1
    if level(current, before, now, window_s) <= room:
        return 0
    if before and current <= room:
        # In this window: before * (1 - t / window) falls to what is left beside ``current``.
        wait = window_s * (1 - (room - current) / before) - passed
    elif current > room and current:
        # In the next one, where ``current`` is the window before.
        wait = left + window_s * (1 - max(0, room) / current)
    else:
        wait = left
    return max(1, math.ceil(wait))


def _escaped(value: str) -> str:
    return value.replace("%", "%25").replace("|", "%7C")
