"""References to nothing: hosts, ports and subsets that no object defines, subsets without a workload."""

from __future__ import annotations

from collections.abc import Iterator

from retia.analysis.world import World
from retia.config.codes import Code, finding
from retia.config.schema.http_action import Destination
from retia.config.schema.virtual_service import VirtualService
from retia.model.finding import Finding
from retia.model.ids import Host, Namespace
from retia.model.mesh import labels_match
from retia.model.objects import ConfigObject, ObjectRef


def check(world: World) -> Iterator[Finding]:
    known = {obj.ref for obj in world.kind("VirtualService")}
    for obj in world.kind("VirtualService"):
        for field, destination in destinations(obj.spec):
            yield from _destination(world, obj, f"spec.{field}", destination)
        yield from _delegates(known, obj)
    for obj in world.kind("DestinationRule"):
        yield from _rule(world, obj)


def _delegates(known: set[ObjectRef], obj: ConfigObject) -> Iterator[Finding]:
    """Rules that another object is to have, which does not exist."""
    for index, rule in enumerate(obj.spec.http):
        if rule.delegate is None:
            continue
        namespace = Namespace(rule.delegate.namespace or obj.ref.namespace)
        wanted = ObjectRef("VirtualService", namespace, rule.delegate.name)
        if wanted not in known:
            message = f"is {namespace}/{wanted.name}, but there is no such VirtualService; requests get 404"
            yield finding(Code.UNKNOWN_OBJECT, message, ref=obj.ref, field=f"spec.http[{index}].delegate")


def destinations(spec: VirtualService) -> Iterator[tuple[str, Destination]]:
    """All destinations of a VirtualService, with their field paths."""
    for index, rule in enumerate(spec.http):
        for number, target in enumerate(rule.route):
            yield f"http[{index}].route[{number}].destination", target.destination
        if rule.mirror:
            yield f"http[{index}].mirror", rule.mirror
        for number, mirror in enumerate(rule.mirrors):
            yield f"http[{index}].mirrors[{number}].destination", mirror.destination
    opaque = [(f"tcp[{index}]", rule.route) for index, rule in enumerate(spec.tcp)]
    opaque += [(f"tls[{index}]", rule.route) for index, rule in enumerate(spec.tls)]
    for field, route in opaque:
        for number, each in enumerate(route):
            yield f"{field}.route[{number}].destination", each.destination


def _destination(world: World, obj: ConfigObject, field: str, to: Destination) -> Iterator[Finding]:
    host = world.host(obj, to.host)
    service = world.service(host)
    if service is None and world.may_exist(host):
        yield from _subset(world, obj, host, field, to)
        return
    if service is None:
        message = f"is {to.host}, but no service is named {host}; requests sent to it get 503"
        yield finding(
            Code.UNKNOWN_HOST, message, ref=obj.ref, field=f"{field}.host", remedy=_near(world, to.host)
        )
        return
    if to.port and service.port(to.port.number) is None:
        ports = ", ".join(str(port.number) for port in service.ports) or "none"
        message = f"is {to.port.number}, which {host} does not have (it has {ports}); requests get 503"
        yield finding(Code.UNKNOWN_PORT, message, ref=obj.ref, field=f"{field}.port.number")
    elif not to.port and len(service.ports) > 1 and field.startswith("spec.t"):
        ports = ", ".join(str(port.number) for port in service.ports)
        message = f"names no port, and {host} has several ({ports}); the port that the client called is used"
        yield finding(Code.UNKNOWN_PORT, message, ref=obj.ref, field=field)
    yield from _subset(world, obj, host, field, to)


def _subset(world: World, obj: ConfigObject, host: Host, field: str, to: Destination) -> Iterator[Finding]:
    if to.subset and world.subset(obj, host, to.subset) is None:
        message = f"is {to.subset}, which no DestinationRule for {host} defines; requests sent to it get 503"
        remedy = f"add subset {to.subset} to a DestinationRule for {host}"
        yield finding(Code.UNKNOWN_SUBSET, message, ref=obj.ref, field=f"{field}.subset", remedy=remedy)


def _near(world: World, name: str) -> str:
    """Services of that short name elsewhere: the usual mistake is a missing namespace."""
    near = world.namesakes(name)
    return f"perhaps {' or '.join(near[:3])} is meant" if near else ""


def _rule(world: World, obj: ConfigObject) -> Iterator[Finding]:
    host = world.host(obj, obj.spec.host)
    if host.startswith("*"):
        return
    if world.service(host) is None:
        if world.may_exist(host):
            return
        message = f"is {obj.spec.host}, but no service is named {host}; the rule has no effect"
        remedy = _near(world, obj.spec.host)
        yield finding(Code.UNKNOWN_HOST, message, ref=obj.ref, field="spec.host", remedy=remedy)
        return
    if world.endpoints is None:
        return
    endpoints = world.endpoints.get(host, ())
    for index, subset in enumerate(obj.spec.subsets):
        if not any(labels_match(subset.labels, each.labels) for each in endpoints):
            wanted = ", ".join(f"{key}={value}" for key, value in subset.labels) or "any labels"
            message = (
                f"{subset.name} has no running workload ({host} with {wanted}); requests sent to it get 503"
            )
            yield finding(Code.EMPTY_SUBSET, message, ref=obj.ref, field=f"spec.subsets[{index}]")
