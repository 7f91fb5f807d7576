"""What a canary did in one step, as its callers' proxies counted it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bin:
    """``count`` requests that took from ``lower_ms`` to ``lower_ms + width_ms``."""

    lower_ms: float
    width_ms: float
    count: int


@dataclass(frozen=True, slots=True)
class Sample:
    """Counts of one step. ``failures``: those answered with 5xx, by the canary or for want of one."""

    requests: int = 0
    failures: int = 0
    bins: tuple[Bin, ...] = ()
    """Sorted by ``lower_ms``."""

    @property
    def success_percent(self) -> float:
        """100 where nothing was asked."""
        return 100.0 * (self.requests - self.failures) / self.requests if self.requests else 100.0

    def percentile_s(self, percent: float) -> float | None:
        """The time within which ``percent`` of the requests were done; ``None``: none was timed.

        Within a bin the requests are taken to be spread evenly.
        """
        total = sum(each.count for each in self.bins)
        if not total:
            return None
        wanted, seen = total * percent / 100.0, 0
        for each in self.bins:
            if each.count and seen + each.count >= wanted:
                return (each.lower_ms + each.width_ms * (wanted - seen) / each.count) / 1000.0
            seen += each.count
        last = self.bins[-1]
        return (last.lower_ms + last.width_ms) / 1000.0

    def plus(self, other: Sample) -> Sample:
        counts: dict[tuple[float, float], int] = {}
        for each in (*self.bins, *other.bins):
            key = (each.lower_ms, each.width_ms)
            counts[key] = counts.get(key, 0) + each.count
        bins = tuple(Bin(lower, width, n) for (lower, width), n in sorted(counts.items()) if n > 0)
        return Sample(self.requests + other.requests, self.failures + other.failures, bins)

    def since(self, earlier: Sample) -> Sample:
        """What came after ``earlier``; a proxy that began anew counts from zero."""
        if self.requests < earlier.requests or self.failures < earlier.failures:
            return self
        before = {(b.lower_ms, b.width_ms): b.count for b in earlier.bins}
        bins = (
            Bin(b.lower_ms, b.width_ms, b.count - before.get((b.lower_ms, b.width_ms), 0)) for b in self.bins
        )
        return Sample(
            self.requests - earlier.requests,
            self.failures - earlier.failures,
            tuple(b for b in bins if b.count > 0),
        )


@dataclass(frozen=True, slots=True)
class Evidence:
    """The sample of this step, and whether it can be relied on."""

    sample: Sample = Sample()
    missing: str = ""
    """Why the sample may lack something (a host that is away); empty: it is complete and new."""
