"""Retia's own policies against what they are for: rules without that name, ports in which nothing can be
read, and rivals. Targets that don't exist are found in :mod:`retia.analysis.selectors`."""

from __future__ import annotations

from collections.abc import Iterator

from retia.analysis.selectors import TARGETING
from retia.analysis.world import World
from retia.config.codes import Code, finding
from retia.config.schema.policy_target import TargetRef
from retia.config.schema.rate_limit_policy import Scope, Unavailable
from retia.model.finding import Finding
from retia.model.ids import MESH_NAMESPACE, service_host
from retia.model.limit import SERVICE
from retia.model.objects import ConfigObject
from retia.policy.targets import kind_of, places

_SINGLE = {
    "OverloadPolicy": (
        ("retry_budget", "retryBudget"),
        ("adaptive_concurrency", "adaptiveConcurrency"),
        ("admission_control", "admissionControl"),
        ("priority", "priority"),
    ),
    "HttpPolicy": (
        ("compression", "compression"),
        ("max_request_bytes", "maxRequestBytes"),
        ("transcoding", "transcoding"),
    ),
    "RateLimitPolicy": (("status", "status"),),
}
"""Fields of which one place has one: the oldest policy's."""


def check(world: World) -> Iterator[Finding]:
    for kind in TARGETING:
        for obj in world.kind(kind):
            for index, ref in enumerate(obj.spec.target_refs):
                if ref.kind == "Service":
                    yield from _service(world, obj, ref, f"spec.targetRefs[{index}]")
                elif ref.is_route and ref.section_name:
                    yield from _rule(world, obj, ref, f"spec.targetRefs[{index}]")
        yield from _rivals(world, kind)
    yield from _uncounted(world)


def _uncounted(world: World) -> Iterator[Finding]:
    """Global limits without the service that counts."""
    host = service_host(SERVICE, MESH_NAMESPACE, world.suffix)
    if host in world.services or world.may_exist(host):
        return
    for obj in world.kind("RateLimitPolicy"):
        for index, limit in enumerate(obj.spec.limits):
            if limit.scope is Scope.GLOBAL:
                told = "are let through" if obj.spec.on_unavailable is Unavailable.ALLOW else "get 503"
                message = f"is Global, but there is no service {host} to count; its requests {told}"
                remedy = "put 'ratelimit: {}' into the mesh file, or run 'retia ratelimit' as that service"
                field = f"spec.limits[{index}].scope"
                yield finding(Code.UNKNOWN_HOST, message, ref=obj.ref, field=field, remedy=remedy)


def _rule(world: World, obj: ConfigObject, ref: TargetRef, field: str) -> Iterator[Finding]:
    for route in world.kind(kind_of(ref)):
        if (route.ref.namespace, route.ref.name) != (obj.ref.namespace, ref.name):
            continue
        rules = route.spec.http if ref.kind == "VirtualService" else route.spec.rules
        names = [str(name) for rule in rules if (name := getattr(rule, "name", ""))]
        if ref.section_name not in names:
            have = ", ".join(names) or "none has a name"
            message = f"is {ref.section_name}, which is no rule of {route.ref} ({have}); it has no effect"
            yield finding(Code.UNKNOWN_OBJECT, message, ref=obj.ref, field=f"{field}.sectionName")


def _service(world: World, obj: ConfigObject, ref: TargetRef, field: str) -> Iterator[Finding]:
    known = world.services.get(service_host(ref.name, obj.ref.namespace, world.suffix))
    if known is None or not _needs_http(obj):
        return
    ports = [p for p in known.ports if ref.section_name in ("", p.name, str(p.number))]
    if ports and not any(port.protocol.is_http for port in ports):
        spoken = ", ".join(f"{port.number} is {port.protocol}" for port in ports)
        message = f"is {ref.name}, of which no port is declared as HTTP ({spoken}); nothing is looked into"
        remedy = "declare the port's protocol: http, http2 or grpc"
        yield finding(Code.PROTOCOL_MISMATCH, message, ref=obj.ref, field=f"{field}.name", remedy=remedy)


def _needs_http(obj: ConfigObject) -> bool:
    if obj.ref.kind == "RateLimitPolicy":
        return any(limit.of_requests or limit.bytes is not None for limit in obj.spec.limits)
    if obj.ref.kind == "OverloadPolicy":
        spec = obj.spec
        return any((spec.adaptive_concurrency, spec.admission_control, spec.priority))
    return True


def _rivals(world: World, kind: str) -> Iterator[Finding]:
    """Of several policies for one target the oldest decides what there can be one of."""
    owners: dict[tuple[str, str], tuple[ConfigObject, object]] = {}
    for obj in world.kind(kind):
        if not obj.spec.target_refs and obj.spec.selector is not None:
            continue
        for place in places(obj):
            for part, field in _SINGLE[kind]:
                given = getattr(obj.spec, part)
                if given is None:
                    continue
                older, said = owners.setdefault((place, part), (obj, given))
                if older is not obj and said != given:
                    message = f"has no effect: {older.ref} is older and is for the same target"
                    yield finding(Code.POLICY_CONFLICT, message, ref=obj.ref, field=f"spec.{field}")
