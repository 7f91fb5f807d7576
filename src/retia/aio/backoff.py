"""Pauses between attempts: growing, bounded, and different for each who tries.

Full jitter spreads a fleet that lost the same server at the same moment; see "Exponential Backoff and
Jitter", AWS Architecture Blog, 2015.
"""

from __future__ import annotations

import random
from collections.abc import Callable


class Backoff:
    """The pauses of one who tries again and again.

    The n-th pause is between ``first_s`` and ``first_s * factor**n``, at most ``limit_s``.
    """

    def __init__(
        self,
        first_s: float = 0.1,
        limit_s: float = 5.0,
        factor: float = 2.0,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        if not 0 < first_s <= limit_s or factor < 1:
            raise ValueError(f"backoff of {first_s} s up to {limit_s} s by {factor}")
        self._first_s = first_s
        self._limit_s = limit_s
        self._factor = factor
        self._uniform = uniform
        self._ceiling_s = first_s

    def next_s(self) -> float:
        """How long to wait now, in seconds."""
        self._ceiling_s = min(self._ceiling_s * self._factor, self._limit_s)
        return self._uniform(self._first_s, self._ceiling_s)

    def reset(self) -> None:
        """It has worked: the next pause is short again."""
        self._ceiling_s = self._first_s
