"""How near endpoints are: the priorities and shares that ``localityLbSetting`` gives them.

Endpoints of one priority are used alike; the next priority only takes what an unhealthy one before it can't.
Without ejection (``outlierDetection``) a priority never becomes unhealthy, so that, as in Istio, priorities
are given only where there is one, or where the service itself asks for near endpoints.

Where a DestinationRule and the mesh say nothing, the nearest locality is preferred: the rules are empty, and
they are on.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil

from retia.model.ids import HostId
from retia.model.mesh import Labels, LocalityRules
from retia.model.snapshot import View
from retia.policy.registry import mesh, service
from retia.policy.traffic.forms import TrafficPolicy

REGION = "topology.kubernetes.io/region"
ZONE = "topology.kubernetes.io/zone"
SUBZONE = "topology.istio.io/subzone"
HOSTNAME = "kubernetes.io/hostname"
TOPOLOGY = (REGION, ZONE, SUBZONE)


@dataclass(frozen=True, slots=True)
class Near:
    """What counts for one client and one destination."""

    rules: LocalityRules
    locality: str
    """The client's."""
    labels: Labels
    """The client's, with those of where it is."""
    failover: bool
    """Priorities are given."""

    def priority(self, locality: str, labels: Labels, host: HostId | None) -> int:
        """How far an endpoint is; 0: the nearest. Numbers are only to be compared."""
        if not self.failover:
            return 0
        far = 0
        if self.rules.priority:
            far = _by_labels(
                self.rules.priority, dict(self.labels), dict(place_labels(locality, labels, host))
            )
            if not self.rules.failover:
                return far
        return far * 5 + _by_region(self.rules.failover, self.locality, locality)

    def share(self, localities: dict[str, int]) -> dict[str, int] | None:
        """The weight of each locality, from the weights of their endpoints; those left out get nothing.
        ``None``: nobody has given shares."""
        for origin, shares in self.rules.distribute:
            if matches(self.locality, origin):
                return _distribute(shares, localities)
        return None


def near(view: View, host: str, policy: TrafficPolicy) -> Near | None:
    """What counts as near towards a service; ``None``: all endpoints are alike."""
    own = policy.balancing.locality
    known = service(view, host)
    rules, failover = own, policy.outlier is not None
    if rules is None and known is not None and known.nearest:
        rules, failover = LocalityRules(priority=known.nearest), True
    rules = rules or mesh(view).locality
    if not rules.enabled:
        return None
    failover = failover and not rules.distribute
    if not failover and not rules.distribute:
        return None
    place = view.proxy("locality")
    labels: Labels = ()
    if rules.priority:
        labels = place_labels(place, view.proxy("labels"), view.proxy("host"))
    return Near(rules, place, labels, failover)


def weighs_localities(view: View, host: str, policy: TrafficPolicy) -> bool:
    """Whether localities have weights of their own, which Envoy must be told to look at."""
    found = near(view, host, policy)
    if found is None:
        return False
    return bool(found.rules.distribute or found.rules.failover or found.rules.priority)


def place_labels(locality: str, labels: Labels, host: HostId | None) -> Labels:
    """Labels, and those that say where something is."""
    place = dict(zip(TOPOLOGY, (part for part in parts(locality) if part), strict=False))
    if host:
        place[HOSTNAME] = host
    return tuple(sorted({**place, **dict(labels)}.items()))


def parts(locality: str) -> tuple[str, str, str]:
    """Region, zone and subzone; empty: not said."""
    region, zone, subzone = (*locality.split("/", 2), "", "")[:3]
    return region, zone, subzone


def matches(locality: str, rule: str) -> bool:
    """Whether a locality is meant by ``region/zone/*`` or a start of it."""
    region, *rest = zip(parts(locality), parts(rule), strict=True)
    if region[1] not in ("*", region[0]):
        return False
    return all(wanted in ("*", "", mine) for mine, wanted in rest)


def dense(priorities: Iterable[int]) -> dict[int, int]:
    """Each priority's place in their order: Envoy wants 0, 1, 2 without a gap."""
    return {priority: place for place, priority in enumerate(sorted(set(priorities)))}


def _by_region(failover: tuple[tuple[str, str], ...], mine: str, other: str) -> int:
    own, theirs = parts(mine), parts(other)
    if own[0] != theirs[0]:
        wanted = dict(reversed(failover)).get(own[0])
        return 3 if wanted is None or theirs[0] == wanted else 4
    if own[1] != theirs[1]:
        return 2
    return 0 if own[2] == theirs[2] else 1


def _by_labels(wanted: tuple[str, ...], mine: dict[str, str], theirs: dict[str, str]) -> int:
    for place, item in enumerate(wanted):
        label, given, value = item.partition("=")
        if (value if given else mine.get(label, "")) != theirs.get(label, ""):
            return len(wanted) - place
    return 0


def _distribute(shares: tuple[tuple[str, int], ...], localities: dict[str, int]) -> dict[str, int]:
    found: dict[str, int] = {}
    left = dict(localities)
    for rule, percent in shares:
        meant = {locality: weight for locality, weight in left.items() if matches(locality, rule)}
        total = sum(meant.values())
        for locality, weight in meant.items():
            found[locality] = ceil(weight * percent / total)
            del left[locality]
    return found
