"""When to replace a certificate, when to try again, and whether two clocks agree.

Certificates are renewed between 40 % and 50 % of their life: at half-life at the latest, so that half a life
is left for an outage of the controller; earlier by chance, so that a thousand workloads started together
don't renew together. Time and chance are arguments.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from retia.identity.profiles import BACKDATE, SKEW_TOLERANCE

HALF_LIFE: Final = 0.5
SPREAD: Final = 0.1
"""The part of a life over which renewals are spread, before half-life."""

FIRST_RETRY_S: Final = 1.0
LAST_RETRY_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Life:
    """The validity of a certificate as it stands in it."""

    not_before: datetime
    not_after: datetime

    @property
    def issued(self) -> datetime:
        """When it was made: ``not_before`` lies :data:`~retia.identity.profiles.BACKDATE` before that. In a
        certificate too short for it (another authority's), ``not_before`` itself."""
        backdated = self.not_before + BACKDATE
        return backdated if backdated < self.not_after else self.not_before

    def remaining(self, now: datetime) -> timedelta:
        """How long it is still valid; negative once it has expired."""
        return self.not_after - now

    def expired(self, now: datetime) -> bool:
        return now >= self.not_after


def renew_at(life: Life, jitter: float) -> datetime:
    """When to renew: ``jitter`` (0 <= jitter < 1, drawn once per certificate) moves it from half-life towards
    the beginning by up to a tenth of the life."""
    share = HALF_LIFE - SPREAD * min(max(jitter, 0.0), 1.0)
    return life.issued + (life.not_after - life.issued) * share


def is_due(life: Life, jitter: float, now: datetime) -> bool:
    """Whether to renew now. A certificate that isn't valid yet is due as well: one of the clocks is wrong."""
    return now >= renew_at(life, jitter) or now < life.not_before


def retry_after_s(attempt: int, jitter: float) -> float:
    """Seconds to wait after failed attempt number ``attempt`` (from 1): doubling from one second to a minute,
    of which ``jitter`` (0 <= jitter < 1) takes away up to half."""
    doublings = min(max(attempt - 1, 0), 16)
    return float(min(FIRST_RETRY_S * 2**doublings, LAST_RETRY_S) * (1 - jitter / 2))


def skew(local: datetime, remote: datetime) -> timedelta:
    """How far the local clock is ahead of the remote one; negative: behind."""
    return local - remote


def skew_problem(local: datetime, remote: datetime) -> str:
    """One sentence about a skew beyond the tolerance; empty where the clocks agree well enough."""
    ahead = skew(local, remote)
    if abs(ahead) <= SKEW_TOLERANCE:
        return ""
    side = "ahead of" if ahead > timedelta(0) else "behind"
    return (
        f"this host's clock is {abs(ahead).total_seconds():.0f}s {side} the controller's; certificates need "
        f"it within {SKEW_TOLERANCE.total_seconds():.0f}s; synchronise it (for example with chrony)"
    )
