"""Which lanes there are, and which instances of a service are a lane's.

A service's instances labelled ``retia.dev/lane: <lane>`` are the lane's version of it; where there is none,
those with the labels that the lane's object names for the service. Instances with the label serve their lane
only: no other destination includes them, unless its own labels ask for it.
"""

from __future__ import annotations

from dataclasses import dataclass

from retia.model.ids import Host, qualify
from retia.model.mesh import Labels, labels_match, labels_of
from retia.model.objects import ConfigObject, ObjectRef
from retia.model.snapshot import View
from retia.policy.indexes import objects
from retia.policy.registry import endpoints, mesh

LANE_LABEL = "retia.dev/lane"
_PREFIX = "lane~"


@dataclass(frozen=True, slots=True)
class Lane:
    """One lane. Of two objects of one name the older counts."""

    name: str
    ref: ObjectRef
    entry: Host | None
    """The service whose callers give requests their lane; ``None``: gateways do."""
    accepts: bool
    """The lane that a gateway's client names in its baggage is believed."""
    versions: tuple[tuple[Host, Labels], ...]


def lanes(view: View, _key: str = "") -> tuple[Lane, ...]:
    """All lanes, the oldest first."""
    found: dict[str, Lane] = {}
    suffix = mesh(view).dns_suffix
    for obj in objects(view, "lanes", ""):
        found.setdefault(obj.ref.name, _lane(obj, suffix))
    return tuple(found.values())


def _lane(obj: ConfigObject, suffix: str) -> Lane:
    spec, namespace = obj.spec, obj.ref.namespace
    entry = qualify(spec.entry.service, namespace, suffix) if spec.entry is not None else None
    versions = tuple((qualify(name, namespace, suffix), labels_of(labels)) for name, labels in spec.versions)
    return Lane(obj.ref.name, obj.ref, entry, str(spec.client_baggage) == "Accept", versions)


def lane_subset(lane: str) -> str:
    """The implicit subset of a lane's instances; ``~`` cannot stand in a DestinationRule's subset."""
    return f"{_PREFIX}{lane}"


def lane_labels(view: View, key: tuple[str, str, int]) -> Labels | None:
    """The labels of a lane's version of ``(lane, host, port)``; ``None``: no instance is there now."""
    name, host, port = key
    own: Labels = ((LANE_LABEL, name),)
    candidates: list[Labels] = [own]
    lane = next((each for each in view.query(lanes, "") if each.name == name), None)
    if lane is None:
        return None
    candidates += [labels for service, labels in lane.versions if service == host]
    there = [e.labels for e in endpoints(view, host) if e.service_port == port]
    return next((c for c in candidates if any(selects(c, labels) for labels in there)), None)


def chosen(view: View, host: str, port: int, subset: str) -> Labels | None:
    """The labels behind an implicit subset; ``None``: it is no lane's, or the lane has no version here."""
    if not subset.startswith(_PREFIX):
        return None
    return view.query(lane_labels, (subset.removeprefix(_PREFIX), host, port))


def selects(selector: Labels, labels: Labels) -> bool:
    """Whether a destination with these labels includes an instance: a lane's instances only if it asks."""
    if not labels_match(selector, labels):
        return False
    return all(key != LANE_LABEL for key, _ in labels) or any(key == LANE_LABEL for key, _ in selector)
