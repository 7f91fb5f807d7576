"""Policies that are for nobody: labels that no workload has, targets that no object is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from retia.analysis.world import World
from retia.config.codes import Code, finding
from retia.model.finding import Finding
from retia.model.ids import MESH_NAMESPACE, service_host
from retia.model.mesh import Labels, labels_match
from retia.model.objects import ConfigObject
from retia.policy.targets import kind_of

SHOWN_LABELS = 5
TARGETING = ("RateLimitPolicy", "OverloadPolicy", "HttpPolicy")
_SELECTING = (
    ("DestinationRule", "workloadSelector.matchLabels"),
    ("Sidecar", "workloadSelector.labels"),
    ("EnvoyFilter", "workloadSelector.labels"),
    ("ProxyConfig", "selector.matchLabels"),
    *((kind, "selector.matchLabels") for kind in TARGETING),
)
_ROOT_APPLIES_TO_ALL = frozenset({*TARGETING, "EnvoyFilter", "ProxyConfig"})
"""Kinds whose selector, in the root namespace, selects from all namespaces."""


def check(world: World) -> Iterator[Finding]:
    for kind, field in _SELECTING:
        for obj in world.kind(kind):
            yield from _selected(world, obj, field)
    for kind in TARGETING:
        for obj in world.kind(kind):
            yield from _targets(world, obj)


def _selected(world: World, obj: ConfigObject, field: str) -> Iterator[Finding]:
    labels = _labels(obj, field)
    if world.workloads is None or not labels:
        return
    everywhere = obj.ref.namespace == MESH_NAMESPACE and obj.ref.kind in _ROOT_APPLIES_TO_ALL
    near = [each.labels for each in world.workloads if everywhere or each.namespace == obj.ref.namespace]
    if any(labels_match(labels, each) for each in near):
        return
    wanted = ", ".join(f"{key}={value}" for key, value in labels)
    where = "of the mesh" if everywhere else f"of {obj.ref.namespace}"
    message = f"selects {wanted}, which no running workload {where} has{_instead(near, labels)}"
    yield finding(Code.EMPTY_SELECTOR, message, ref=obj.ref, field=f"spec.{field}")


def _instead(near: Iterable[Labels], wanted: Labels) -> str:
    """Which values the keys that are asked for do have there; a few, as a part of a sentence."""
    keys = {key for key, _ in wanted}
    there = sorted({f"{key}={value}" for labels in near for key, value in labels if key in keys})
    if not there:
        return ""
    more = ", ..." if len(there) > SHOWN_LABELS else ""
    return f"; there are {', '.join(there[:SHOWN_LABELS])}{more}"


def _labels(obj: ConfigObject, field: str) -> Labels:
    name, _, rest = field.partition(".")
    selector = getattr(obj.spec, "workload_selector" if name == "workloadSelector" else name)
    if selector is None:
        return ()
    found: Labels = selector.labels if rest == "labels" else selector.match_labels
    return found


def _targets(world: World, obj: ConfigObject) -> Iterator[Finding]:
    for index, target in enumerate(obj.spec.target_refs):
        kind, field = kind_of(target), f"spec.targetRefs[{index}]"
        if kind == "Service":
            yield from _service(world, obj, field, target.name, target.section_name)
        elif not any(
            o.ref.namespace == obj.ref.namespace and o.ref.name == target.name for o in world.kind(kind)
        ):
            message = (
                f"is {target.kind} {obj.ref.namespace}/{target.name}, which there is not; it has no effect"
            )
            yield finding(Code.UNKNOWN_OBJECT, message, ref=obj.ref, field=f"{field}.name")


def _service(world: World, obj: ConfigObject, field: str, name: str, section: str) -> Iterator[Finding]:
    host = service_host(name, obj.ref.namespace, world.suffix)
    service = world.services.get(host)
    if service is None:
        if not world.may_exist(host):
            message = f"is {name}, but no service is named {host}; it has no effect"
            yield finding(Code.UNKNOWN_HOST, message, ref=obj.ref, field=f"{field}.name")
    elif section and not any(section in (str(p.number), p.name) for p in service.ports):
        message = f"is {section}, which is no port of {host}; it has no effect"
        yield finding(Code.UNKNOWN_PORT, message, ref=obj.ref, field=f"{field}.sectionName")
