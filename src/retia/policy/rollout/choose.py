"""Which Rollout a service has, and what its two implicit subsets stand for."""

from __future__ import annotations

from retia.model.mesh import Labels, labels_of
from retia.model.objects import ConfigObject
from retia.model.snapshot import View
from retia.policy.indexes import objects

STABLE = "rollout~stable"
CANARY = "rollout~canary"
"""``~`` cannot stand in a subset's name, so that no DestinationRule can define these."""


def rollout_of(view: View, host: str) -> ConfigObject | None:
    """The Rollout of a service: the oldest that names it, of the service's or any other namespace."""
    found = objects(view, "rollout-host", host)
    return found[0] if found else None


def chosen(view: View, host: str, subset: str) -> tuple[str, Labels] | None:
    """What an implicit subset stands for: a subset of a DestinationRule or labels; ``None``: nothing."""
    obj = rollout_of(view, host)
    if obj is None or subset not in (STABLE, CANARY):
        return None
    version = obj.spec.stable if subset == STABLE else obj.spec.canary
    return version.subset or "", labels_of(version.labels or ())
