"""Rollouts and lanes that do not do what they seem to: versions that nobody has, rules that pass them by."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from retia.analysis.references import destinations
from retia.analysis.world import World
from retia.config.codes import Code, finding
from retia.model.finding import Finding
from retia.model.ids import Host
from retia.model.mesh import Labels, labels_of
from retia.model.objects import ConfigObject
from retia.policy.lanes import MAX_LANES, selects


def check(world: World) -> Iterator[Finding]:
    yield from _rollouts(world)
    yield from _lanes(world)


# -- rollouts ----------------------------------------------------------------------------------------------


def _rollouts(world: World) -> Iterator[Finding]:
    first: dict[Host, ConfigObject] = {}
    for obj in world.kind("Rollout"):
        host = world.host(obj, obj.spec.service)
        older = first.setdefault(host, obj)
        if older is not obj:
            message = f"has no effect: {older.ref} is older and rolls out {host}"
            yield finding(Code.POLICY_CONFLICT, message, ref=obj.ref, field="spec.service")
            continue
        yield from _service(world, obj, host)
        for name in ("stable", "canary"):
            yield from _version(world, obj, host, name, getattr(obj.spec, name))
        yield from _passed_by(world, obj, host)


def _service(world: World, obj: ConfigObject, host: Host) -> Iterator[Finding]:
    known = world.service(host)
    if known is None:
        if not world.may_exist(host):
            message = f"is {obj.spec.service}, but no service is named {host}; the rollout has no effect"
            yield finding(Code.UNKNOWN_HOST, message, ref=obj.ref, field="spec.service")
    elif not any(port.protocol.is_http or port.protocol == "auto" for port in known.ports):
        message = f"is {host}, which has no HTTP port; connections of other protocols are not split"
        yield finding(Code.PROTOCOL_MISMATCH, message, ref=obj.ref, field="spec.service")


def _version(world: World, obj: ConfigObject, host: Host, name: str, version: Any) -> Iterator[Finding]:
    labels: Labels = labels_of(version.labels or ())
    if version.subset:
        subset = world.subset(obj, host, version.subset)
        if subset is None:
            message = f"is {version.subset}, which no DestinationRule for {host} defines; requests get 503"
            remedy = f"add the subset to a DestinationRule for {host}, or give labels"
            yield finding(
                Code.UNKNOWN_SUBSET, message, ref=obj.ref, field=f"spec.{name}.subset", remedy=remedy
            )
            return
        labels = labels_of(subset.labels or ())
    if world.endpoints is None or world.service(host) is None:
        return
    if not any(selects(labels, each.labels) for each in world.endpoints.get(host, ())):
        wanted = ", ".join(f"{key}={value}" for key, value in labels)
        message = f"has no running workload ({host} with {wanted}); requests sent to it get 503"
        yield finding(Code.EMPTY_SUBSET, message, ref=obj.ref, field=f"spec.{name}")


def _passed_by(world: World, obj: ConfigObject, host: Host) -> Iterator[Finding]:
    for rule in world.kind("VirtualService"):
        for field, to in destinations(rule.spec):
            if (
                to.subset
                and field.startswith("http")
                and "mirror" not in field
                and world.host(rule, to.host) == host
            ):
                message = f"names subset {to.subset} of {host}, so {obj.ref} does not split its requests"
                yield finding(Code.ROLLOUT_PASSED_BY, message, ref=rule.ref, field=f"spec.{field}.subset")


# -- lanes -------------------------------------------------------------------------------------------------


def _lanes(world: World) -> Iterator[Finding]:
    first: dict[str, ConfigObject] = {}
    for obj in world.kind("TrafficLane"):
        older = first.setdefault(obj.ref.name, obj)
        if older is not obj:
            message = f"has no effect: {older.ref} is older, and lanes have one name in all namespaces"
            yield finding(Code.POLICY_CONFLICT, message, ref=obj.ref, field="metadata.name")
            continue
        if len(first) > MAX_LANES:
            message = f"has no effect: {MAX_LANES} lanes are older, and there can be no more"
            yield finding(Code.POLICY_CONFLICT, message, ref=obj.ref, field="metadata.name")
            continue
        named = [(f"spec.versions.{name}", name) for name, _ in obj.spec.versions]
        if obj.spec.entry is not None:
            named.append(("spec.entry.service", obj.spec.entry.service))
        for field, name in named:
            host = world.host(obj, name)
            if world.service(host) is None and not world.may_exist(host):
                message = f"is {name}, but no service is named {host}; it has no effect"
                yield finding(Code.UNKNOWN_HOST, message, ref=obj.ref, field=field)
        if obj.spec.entry is not None and not obj.spec.match:
            message = "has no effect without match: nothing enters the lane here"
            yield finding(Code.NO_EFFECT_FIELD, message, ref=obj.ref, field="spec.entry")
