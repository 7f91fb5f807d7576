"""What each kind of certificate may do, and how long it lives.

``not_before`` is set ten minutes back, so that a host whose clock is up to five minutes behind the
authority's (and the same again between two such hosts) accepts a certificate made a moment ago. A clock that
runs ahead costs only that much of the lifetime. More skew than :data:`SKEW_TOLERANCE` is not survived by
design: it is reported (see :func:`retia.identity.rotation.skew`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

BACKDATE: Final = timedelta(minutes=10)
"""How far back ``not_before`` lies: twice the skew that is tolerated in either direction."""

SKEW_TOLERANCE: Final = timedelta(minutes=5)

DEFAULT_LIFETIME: Final = timedelta(hours=24)
"""Of host, workload and controller certificates; as Istio's."""

SHORTEST_LIFETIME: Final = timedelta(seconds=2)
"""Below this no renewal could be done in time. Lifetimes below :data:`BACKDATE` don't survive the full skew
and are meant for tests."""

LONGEST_LIFETIME: Final = timedelta(days=90)
"""Longer ones would outlive half of an intermediate's life (arbitrary otherwise)."""


class Usage(StrEnum):
    """X.509 key usages and extended key usages, by the names of RFC 5280."""

    DIGITAL_SIGNATURE = "digitalSignature"
    KEY_CERT_SIGN = "keyCertSign"
    CRL_SIGN = "cRLSign"
    SERVER_AUTH = "serverAuth"
    CLIENT_AUTH = "clientAuth"


@dataclass(frozen=True, slots=True)
class Profile:
    """One kind of certificate. ``path_length`` counts certificate authorities below; leaves have none."""

    name: str
    lifetime: timedelta
    usages: frozenset[Usage]
    authority: bool = False
    path_length: int | None = None

    def validity(self, now: datetime) -> tuple[datetime, datetime]:
        """``(not_before, not_after)`` for a certificate made at ``now``, in whole seconds."""
        issued = now.replace(microsecond=0)
        return issued - BACKDATE, issued + self.lifetime


_SIGNS = frozenset({Usage.KEY_CERT_SIGN, Usage.CRL_SIGN})
_LEAF = frozenset({Usage.DIGITAL_SIGNATURE, Usage.SERVER_AUTH, Usage.CLIENT_AUTH})

ROOT: Final = Profile("root", timedelta(days=3650), _SIGNS, authority=True, path_length=1)
INTERMEDIATE: Final = Profile("intermediate", timedelta(days=365), _SIGNS, authority=True, path_length=0)


def leaf(name: str, lifetime: timedelta = DEFAULT_LIFETIME) -> Profile:
    """The profile of a host's, workload's or controller's certificate.

    Raises ``ValueError`` when ``lifetime`` is shorter than :data:`SHORTEST_LIFETIME` or longer than
    :data:`LONGEST_LIFETIME`. In doubt leave the default.
    """
    if not SHORTEST_LIFETIME <= lifetime <= LONGEST_LIFETIME:
        raise ValueError(
            f"certificate lifetime is {lifetime.total_seconds():g}s; it must be between "
            f"{SHORTEST_LIFETIME.total_seconds():g}s and {LONGEST_LIFETIME.days} days"
        )
    return Profile(name, lifetime, _LEAF)
