"""Rollouts and lanes laid over the rules of a host: which versions of services requests go to.

Rules are first written as if neither existed. Then a rollout splits destinations that are a service as a
whole, and before each rule stand its copies for the requests of lanes.
"""

from __future__ import annotations

from retia.model.resource import Provenance
from retia.model.snapshot import View
from retia.policy.indexes import uses
from retia.policy.lanes.routes import with_lanes
from retia.policy.rollout.split import split_rule
from retia.policy.routing.forms import HttpRule


def arrange(
    view: View, rules: tuple[HttpRule, ...], *, gateway: bool = False
) -> tuple[tuple[HttpRule, ...], tuple[Provenance, ...]]:
    """The rules as they hold now, and the objects that changed them."""
    rollouts, lanes = uses(view, "rollouts"), uses(view, "lanes")
    if not rollouts and not lanes:
        return rules, ()
    found: list[HttpRule] = []
    who: list[Provenance] = []
    for original in rules:
        rule = original
        if rollouts:
            rule, by = split_rule(view, original)
            who += by
        if lanes:
            before, by = with_lanes(view, rule, original, gateway=gateway)
            found += before
            who += by
        found.append(rule)
    return tuple(found), tuple(dict.fromkeys(who))
