"""When a silent host counts as lost. Pure: time is an argument.

A host's lease runs from its last word. A lapsed lease withdraws the host's endpoints, except while the
leases are *held*: for one period after the controller's start, and for one period after more than a share of
all leases lapsed within one period. A controller that was away, or cut off, must not see a dead fleet.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

MASS_SHARE = 0.15
"""More than this share of leases lapsing within one period is taken for a fault on our side."""


@dataclass(slots=True)
class Lease:
    expires: float
    lapsed: bool = False
    """It ran out, and was counted."""


class Leases:
    """All leases, by host. Times are monotonic seconds."""

    def __init__(self, period_s: float, now: float) -> None:
        self.period_s = period_s
        self.held_until = now + period_s
        self.reason = "the controller has just started"
        self._leases: dict[str, Lease] = {}
        self._lapses: deque[float] = deque()

    def held(self, now: float) -> bool:
        """Whether nothing is withdrawn at the moment."""
        return now < self.held_until

    def state(self, host: str, now: float) -> str:
        """``valid``, ``held`` (lapsed, its endpoints are kept) or ``lapsed``."""
        lease = self._leases.get(host)
        if lease is not None and now < lease.expires:
            return "valid"
        return "held" if lease is not None and self.held(now) else "lapsed"

    def renew(self, host: str, now: float) -> None:
        """The host has said something."""
        self._leases[host] = Lease(now + self.period_s)

    def remember(self, host: str) -> None:
        """The host was there before the controller started; it has until the hold ends to come
        back."""
        self._leases.setdefault(host, Lease(0.0, lapsed=True))

    def drop(self, host: str) -> None:
        """The host is gone for good."""
        self._leases.pop(host, None)

    def sweep(self, now: float) -> list[str]:
        """The hosts that are lost now; they have no lease any more."""
        due = [host for host, lease in self._leases.items() if lease.expires <= now]
        for host in due:
            lease = self._leases[host]
            if not lease.lapsed:
                lease.lapsed = True
                self._lapses.append(lease.expires)
        while self._lapses and self._lapses[0] <= now - self.period_s:
            self._lapses.popleft()
        if self.held(now):
            return []
        if self._lapses and len(self._lapses) > MASS_SHARE * len(self._leases):
            self.held_until = now + self.period_s
            self.reason = (
                f"{len(self._lapses)} of {len(self._leases)} hosts fell silent within {self.period_s:g} s"
            )
            self._lapses.clear()
            return []
        for host in due:
            del self._leases[host]
        return due
