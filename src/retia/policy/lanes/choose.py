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
MAX_LANES = 200
"""Each may add a route to every rule; younger ones have no effect. Arbitrary."""
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
    """All lanes, the oldest first, up to :data:`MAX_LANES`."""
    found: dict[str, Lane] = {}
    suffix = mesh(view).dns_suffix
    for obj in objects(view, "lanes", ""):
        if len(found) < MAX_LANES:
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


def versions_at(view: View, key: tuple[str, int]) -> tuple[tuple[str, Labels], ...]:
    """The lanes that have a version of ``(host, port)`` now, with its labels."""
    host, port = key
    there = [e.labels for e in endpoints(view, host) if e.service_port == port]
    labelled = {value for labels in there for name, value in labels if name == LANE_LABEL}
    found: list[tuple[str, Labels]] = []
    for lane in view.query(lanes, ""):
        if lane.name in labelled:
            found.append((lane.name, ((LANE_LABEL, lane.name),)))
            continue
        named = next((labels for service, labels in lane.versions if service == host), None)
        if named is not None and any(selects(named, labels) for labels in there):
            found.append((lane.name, named))
    return tuple(found)


def lane_labels(view: View, key: tuple[str, str, int]) -> Labels | None:
    """The labels of a lane's version of ``(lane, host, port)``; ``None``: no instance is there now."""
    name, host, port = key
    return dict(view.query(versions_at, (host, port))).get(name)


def chosen(view: View, host: str, port: int, subset: str) -> Labels | None:
    """The labels behind an implicit subset; ``None``: it is no lane's, or the lane has no version here."""
    if not subset.startswith(_PREFIX):
        return None
    return lane_labels(view, (subset.removeprefix(_PREFIX), host, port))


def selects(selector: Labels, labels: Labels) -> bool:
    """Whether a destination with these labels includes an instance: a lane's instances only if it asks."""
    if not labels_match(selector, labels):
        return False
    return all(key != LANE_LABEL for key, _ in labels) or any(key == LANE_LABEL for key, _ in selector)
