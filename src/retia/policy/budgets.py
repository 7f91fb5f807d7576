"""Budgets of retries that OverloadPolicies give services: their callers keep them.

It stands apart from :mod:`retia.policy.overload` because it is a part of a destination's traffic policy, of
which gateways, and so that package, are made.
"""

from __future__ import annotations

from dataclasses import dataclass

from retia.model.resource import Provenance
from retia.model.snapshot import View
from retia.policy.indexes import objects
from retia.policy.registry import service


@dataclass(frozen=True, slots=True)
class Budget:
    """Retries at once, as a share of the requests under way, and never fewer than ``least``."""

    percent: float
    least: int
    provenance: tuple[Provenance, ...] = ()


def budget_of(view: View, host: str) -> Budget | None:
    """The budget that callers of a service keep: the oldest policy's. ``None``: no policy gives one."""
    known = service(view, host)
    if known is None:
        return None
    for obj in objects(view, "overload", f"Service/{known.namespace}/{known.name}"):
        given = obj.spec.retry_budget
        if given is not None:
            origin = (Provenance(obj.ref, "spec.retryBudget"),)
            return Budget(given.percent, given.min_concurrency, origin)
    return None
