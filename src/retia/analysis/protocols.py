"""HTTP rules for ports on which no HTTP is spoken."""

from __future__ import annotations

from collections.abc import Iterator

from retia.analysis.world import World
from retia.config.codes import Code, finding
from retia.config.schema.traffic_policy import TrafficPolicy
from retia.model.finding import Finding
from retia.model.mesh import Protocol, Service
from retia.model.objects import ConfigObject

_OPAQUE = (Protocol.TCP, Protocol.TLS)
_REMEDY = "declare the port's protocol (a name such as http-web, or appProtocol: http)"


def check(world: World) -> Iterator[Finding]:
    for obj in world.kind("VirtualService"):
        if obj.spec.http and obj.spec.applies_to_mesh:
            yield from _hosts(world, obj)
            yield from _matched_ports(world, obj)
            yield from _destinations(world, obj)
        if obj.spec.applies_to_mesh:
            yield from _connections(world, obj)
    for obj in world.kind("DestinationRule"):
        yield from _http_policy(world, obj)


def _connections(world: World, obj: ConfigObject) -> Iterator[Finding]:
    """Rules for connections at a port where requests are read one by one: those rules are not asked."""
    services = [world.services.get(world.host(obj, name)) for name in obj.spec.hosts]
    for kind in ("tls", "tcp"):
        for index, rule in enumerate(getattr(obj.spec, kind)):
            for number, match in enumerate(rule.match):
                for service in services:
                    port = service.port(match.port) if service and match.port else None
                    if service and port and port.protocol.is_http:
                        message = (
                            f"is {match.port}, on which {service.host} speaks {port.protocol}; {kind} rules "
                            "are not asked there"
                        )
                        field = f"spec.{kind}[{index}].match[{number}].port"
                        remedy = "write an http rule, or declare the port as tcp"
                        yield finding(
                            Code.PROTOCOL_MISMATCH, message, ref=obj.ref, field=field, remedy=remedy
                        )


def _http_policy(world: World, obj: ConfigObject) -> Iterator[Finding]:
    """Settings for HTTP of a destination that speaks none."""
    service = world.services.get(world.host(obj, obj.spec.host))
    if service is None or not service.ports or not all(p.protocol in _OPAQUE for p in service.ports):
        return
    levels = [("spec.trafficPolicy", obj.spec.traffic_policy)]
    levels += [
        (f"spec.subsets[{i}].trafficPolicy", subset.traffic_policy)
        for i, subset in enumerate(obj.spec.subsets)
    ]
    for field, policy in levels:
        for name in _http_fields(policy) if policy is not None else ():
            message = f"is for HTTP, which {service.host} speaks on no port; it has no effect"
            yield finding(
                Code.PROTOCOL_MISMATCH, message, ref=obj.ref, field=f"{field}.{name}", remedy=_REMEDY
            )


def _http_fields(policy: TrafficPolicy) -> Iterator[str]:
    if policy.connection_pool is not None and policy.connection_pool.http is not None:
        yield "connectionPool.http"
    hashed = policy.load_balancer.consistent_hash if policy.load_balancer is not None else None
    if hashed is not None:
        if hashed.http_header_name:
            yield "loadBalancer.consistentHash.httpHeaderName"
        if hashed.http_cookie is not None:
            yield "loadBalancer.consistentHash.httpCookie"
        if hashed.http_query_parameter_name:
            yield "loadBalancer.consistentHash.httpQueryParameterName"


def _hosts(world: World, obj: ConfigObject) -> Iterator[Finding]:
    """Hosts none of whose ports can carry HTTP."""
    for index, name in enumerate(obj.spec.hosts):
        service = world.services.get(world.host(obj, name))
        if service and service.ports and all(port.protocol in _OPAQUE for port in service.ports):
            ports = ", ".join(f"{port.number} ({port.protocol})" for port in service.ports)
            message = f"is {service.host}, whose ports carry no HTTP: {ports}; the http rules have no effect"
            field = f"spec.hosts[{index}]"
            yield finding(Code.PROTOCOL_MISMATCH, message, ref=obj.ref, field=field, remedy=_REMEDY)


def _matched_ports(world: World, obj: ConfigObject) -> Iterator[Finding]:
    services = [world.services.get(world.host(obj, name)) for name in obj.spec.hosts]
    known = [service for service in services if service is not None]
    for index, rule in enumerate(obj.spec.http):
        for number, match in enumerate(rule.match):
            if not match.port or len(known) != len(services):
                continue
            opaque = [_opaque(service, match.port) for service in known]
            field = f"spec.http[{index}].match[{number}].port"
            if opaque and all(opaque):
                message = (
                    f"is {match.port}, on which {known[0].host} speaks {opaque[0]}; the match never holds"
                )
                yield finding(Code.PROTOCOL_MISMATCH, message, ref=obj.ref, field=field, remedy=_REMEDY)
            elif known and all(service.port(match.port) is None for service in known):
                message = f"is {match.port}, which {known[0].host} does not have; the match never holds"
                yield finding(Code.UNKNOWN_PORT, message, ref=obj.ref, field=field)


def _destinations(world: World, obj: ConfigObject) -> Iterator[Finding]:
    for index, rule in enumerate(obj.spec.http):
        for number, route in enumerate(rule.route):
            to = route.destination
            service = world.service(world.host(obj, to.host))
            opaque = _opaque(service, to.port.number) if service and to.port else ""
            if service and to.port and opaque:
                message = (
                    f"is {to.port.number}, on which {service.host} speaks {opaque}, but the rule sends HTTP"
                )
                field = f"spec.http[{index}].route[{number}].destination.port.number"
                yield finding(Code.PROTOCOL_MISMATCH, message, ref=obj.ref, field=field, remedy=_REMEDY)


def _opaque(service: Service, number: int) -> str:
    port = service.port(number)
    return str(port.protocol) if port and port.protocol in _OPAQUE else ""
