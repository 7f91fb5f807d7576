"""Conditions, as Kubernetes has them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from retia.policy.gateway_api.listeners import Reason


@dataclass(frozen=True, slots=True)
class Serving:
    """Who serves a Gateway."""

    addresses: tuple[str, ...] = ()
    """Of its running proxies, sorted."""
    proxies: int = 0
    """How many serve it."""
    rejected: str = ""
    """Why a proxy refused a part of the configuration; empty: none did."""
    pending: bool = False
    """A proxy has not taken everything yet."""


NOBODY = Serving()


@dataclass(frozen=True, slots=True)
class Condition:
    type: str
    status: bool
    reason: str
    message: str = ""

    def data(self, generation: int) -> dict[str, Any]:
        """As a document says it, but for ``lastTransitionTime``."""
        return {
            "type": self.type,
            "status": "True" if self.status else "False",
            "reason": self.reason,
            "message": self.message,
            "observedGeneration": generation,
        }


def data_of(conditions: Iterable[Condition], generation: int) -> list[dict[str, Any]]:
    return [each.data(generation) for each in conditions]


def good(kind: str, message: str = "") -> Condition:
    """A condition that holds, for the reason of its own name."""
    return Condition(kind, True, kind, message)


def bad(kind: str, reason: Reason) -> Condition:
    return Condition(kind, False, reason.word, reason.message)
