"""The share of a service's requests that goes to a canary now.

Requests that would go to the service as a whole (no rule, or a rule whose destination names no subset) are
split between two implicit subsets, ``rollout~stable`` and ``rollout~canary``, which exist by these names
only while an object asks for them. A rule that names a subset is meant, and stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from retia.model.ids import Host
from retia.model.resource import Provenance
from retia.model.snapshot import View
from retia.policy.rollout.choose import CANARY, STABLE, rollout_of
from retia.policy.routing.forms import HttpRule, Target, WeightedTarget

ENOUGH = 2**24
"""Weights of a rule are made smaller above it: Envoy adds them up in 32 bits, and they are times 100 here."""


@dataclass(frozen=True, slots=True)
class Split:
    """``canary``: percent of requests, 0..100."""

    canary: int
    provenance: Provenance


def split_of(view: View, host: str) -> Split | None:
    """How requests for the service as a whole are split now; ``None``: they are not.

    A rollout that the controller has not begun yet sends nothing to the canary.
    """
    obj = rollout_of(view, host)
    if obj is None:
        return None
    weight = view.fact("rollout", obj.ref.namespace, obj.ref.name)
    return Split(int(weight or 0), Provenance(obj.ref, "spec.steps"))


def split_rule(view: View, rule: HttpRule) -> tuple[HttpRule, tuple[Provenance, ...]]:
    """The rule with its destinations split, and the objects that split them."""
    splits = {
        t.target.host: split
        for t in rule.targets
        if not t.target.subset and (split := view.query(split_of, t.target.host)) is not None
    }
    if not splits:
        return rule, ()
    targets = [part for t in _bounded(rule.targets) for part in _parts(t, splits)]
    if len(targets) == 1:
        targets = [replace(targets[0], weight=1)]
    return replace(rule, targets=tuple(targets)), tuple(s.provenance for s in splits.values())


def _parts(weighted: WeightedTarget, splits: dict[Host, Split]) -> Iterable[WeightedTarget]:
    target = weighted.target
    split = splits.get(target.host) if not target.subset else None
    if split is None:
        yield replace(weighted, weight=weighted.weight * 100)
        return
    for subset, share in ((STABLE, 100 - split.canary), (CANARY, split.canary)):
        if share:
            to = Target(target.host, target.port, subset)
            yield replace(weighted, target=to, weight=weighted.weight * share)


def _bounded(targets: tuple[WeightedTarget, ...]) -> tuple[WeightedTarget, ...]:
    total = sum(t.weight for t in targets)
    if total <= ENOUGH:
        return targets
    return tuple(replace(t, weight=max(1, t.weight * ENOUGH // total)) for t in targets)
