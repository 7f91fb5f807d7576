"""Counters in this process's memory: for one machine. A restart begins anew."""

from __future__ import annotations

from collections.abc import Sequence

from retia.aio.clock import Clock
from retia.ratelimit.counting import Hit, Verdict, verdict

MOST_COUNTERS = 1_000_000
"""About 250 bytes each; beyond it the oldest are forgotten, and begin anew."""
SWEEP_EVERY = 20_000
"""After so many questions counters whose windows are past are forgotten."""


class MemoryStore:
    """A counter is ``[number of its window, hits in it, hits in the one before, length]``."""

    def __init__(self, clock: Clock, most: int = MOST_COUNTERS) -> None:
        self._clock = clock
        self._most = most
        self._counters: dict[str, list[int]] = {}
        self._asked = 0

    def __len__(self) -> int:
        return len(self._counters)

    async def take(self, hits: Sequence[Hit]) -> tuple[Verdict, ...]:
        return self.take_now(hits)

    def take_now(self, hits: Sequence[Hit]) -> tuple[Verdict, ...]:
        """The same without waiting, for nothing needs to be waited for."""
        now = self._clock.now()
        counters = [self._counter(hit, now) for hit in hits]
        said = [
            verdict(hit.limit, counter[1], counter[2], hit.amount, now)
            for hit, counter in zip(hits, counters, strict=True)
        ]
        if not any(each.over and not hit.limit.shadow for each, hit in zip(said, hits, strict=True)):
            for hit, counter, each in zip(hits, counters, said, strict=True):
                # In shadow what would have been refused is not counted either.
                counter[1] += 0 if each.over else hit.amount
        self._asked += 1
        if self._asked >= SWEEP_EVERY:
            self._asked = 0
            self.sweep()
        return tuple(said)

    async def close(self) -> None:
        self._counters.clear()

    def sweep(self) -> None:
        """Forget the counters that say nothing any more."""
        now = self._clock.now()
        self._counters = {
            name: each for name, each in self._counters.items() if int(now // each[3]) - each[0] < 2
        }

    def _counter(self, hit: Hit, now: float) -> list[int]:
        name, length = hit.counter, hit.limit.window_s
        window = int(now // length)
        found = self._counters.get(name)
        if found is None:
            if len(self._counters) >= self._most:
                del self._counters[next(iter(self._counters))]
            found = self._counters[name] = [window, 0, 0, length]
        elif window > found[0]:  # a clock that went back leaves the counter as it is
            found[2] = found[1] if window == found[0] + 1 else 0
            found[0], found[1] = window, 0
        return found
