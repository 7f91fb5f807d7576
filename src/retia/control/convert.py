"""Between the messages of agents and the model. What an agent says is checked here, once."""

from __future__ import annotations

import socket
from typing import Any

from retia._generated import agent_pb2 as pb
from retia.identity.spiffe import IdentityError, parse_namespace, parse_service_account
from retia.model import annotation
from retia.model.ids import MESH_NAMESPACE, Host, HostId, ProxyId, WorkloadId
from retia.model.mesh import (
    INBOUND_PORT,
    CaptureMode,
    Protocol,
    Proxy,
    ProxyKind,
    Upstream,
    Workload,
    WorkloadPort,
    labels_of,
)
from retia.model.resource import Name, Resource, TypeUrl

Message = Any
"""A message of ``retia.agent.v1``."""

MAX_PORTS = 256
MAX_LABELS = 256
GATEWAY_ACCOUNT = "host-gateway"
_TYPES = {str(t): t for t in TypeUrl}


class BadReport(ValueError):  # noqa: N818
    """An agent said something that cannot be; one sentence."""


def workload_of(message: Message, host: HostId) -> Workload:
    """A workload as its agent reports it. Raises :class:`BadReport`."""
    what = f"workload {message.id!r} of host {host}"
    try:
        namespace = parse_namespace(message.namespace)
        account = parse_service_account(message.service_account or "default")
    except IdentityError as error:
        raise BadReport(f"{what}: {error}") from error
    if not message.id.startswith(f"{namespace}/") or len(message.id) > 512:
        raise BadReport(f"{what}: the id must be <namespace>/<name>")
    if len(message.ports) > MAX_PORTS or len(message.labels) > MAX_LABELS:
        raise BadReport(f"{what}: at most {MAX_PORTS} ports and {MAX_LABELS} labels are taken")
    return Workload(
        id=WorkloadId(message.id),
        namespace=namespace,
        service_account=account,
        host=host,
        service=message.service,
        ports=tuple(_port_of(p, what) for p in message.ports),
        labels=labels_of(message.labels),
        annotations=labels_of(message.annotations),
        published_address=_address(message.published_address, what),
        app_address=_address(message.app_address, what),
        gateway_address=_address(message.gateway_address, what),
        gateway_port=message.gateway_port,
        capture=CaptureMode.EXPLICIT if message.capture == CaptureMode.EXPLICIT else CaptureMode.EBPF,
        healthy=message.healthy,
        locality=message.locality,
    )


def proxy_of(message: Message, workload: Workload | None, host: Message, trust_domain: str) -> Proxy:
    """A proxy as its agent reports it; ``host`` is the host's ``Hello``. Raises :class:`BadReport`."""
    what = f"proxy {message.id!r} of host {host.host}"
    try:
        kind = ProxyKind(message.kind or ProxyKind.SIDECAR)
    except ValueError as error:
        raise BadReport(f"{what}: kind {message.kind!r} is not known to this controller") from error
    if kind is ProxyKind.HOST_GATEWAY:
        return _gateway_of(message, host, trust_domain)
    if kind is ProxyKind.GATEWAY and workload is not None:
        return _edge_of(message, workload, host, trust_domain)
    if workload is None:
        raise BadReport(f"{what}: its workload {message.workload!r} is not registered on this host")
    return Proxy(
        id=ProxyId(message.id),
        kind=kind,
        namespace=workload.namespace,
        service_account=workload.service_account,
        host=workload.host,
        workload=workload.id,
        labels=workload.labels,
        annotations=workload.annotations,
        capture=workload.capture,
        outbound_address=_address(message.outbound_address, what) or "127.0.0.1",
        outbound_http_port=message.outbound_http_port,
        outbound_auto_port=message.outbound_auto_port,
        outbound_tcp_port=message.outbound_tcp_port,
        explicit_port=message.explicit_port,
        upstreams=tuple(Upstream(u.local_port, Host(u.host), u.port) for u in message.upstreams),
        inbound_address=workload.published_address if workload.ports else "",
        inbound_port=message.inbound_port or INBOUND_PORT,
        app_address=workload.app_address,
        ports=workload.ports,
        trust_domain=trust_domain,
        gateway_address=host.advertise_address,
        gateway_port=host.gateway_port,
        locality=workload.locality,
    )


def _edge_of(message: Message, workload: Workload, host: Message, trust_domain: str) -> Proxy:
    """A gateway without a program: its annotations say where it listens."""
    what = f"proxy {message.id!r} of host {host.host}"
    said = dict(workload.annotations)
    return Proxy(
        id=ProxyId(message.id),
        kind=ProxyKind.GATEWAY,
        namespace=workload.namespace,
        service_account=workload.service_account,
        host=workload.host,
        workload=workload.id,
        labels=workload.labels,
        annotations=workload.annotations,
        outbound_address=_address(message.outbound_address, what) or "127.0.0.1",
        trust_domain=trust_domain,
        gateway_address=host.advertise_address,
        gateway_port=host.gateway_port,
        locality=workload.locality,
        edge_address=_address(said.get(annotation.GATEWAY_BIND, ""), what),
        edge_ports=_edge_ports(said.get(annotation.GATEWAY_PORTS, ""), what),
    )


def _edge_ports(text: str, what: str) -> tuple[tuple[int, int], ...]:
    """``80:8080,443:8443``."""
    found: dict[int, int] = {}
    for part in text.split(",") if text else ():
        port, _, bound = part.partition(":")
        numbers = [int(each) for each in (port, bound) if each.isascii() and each.isdigit() and len(each) < 6]
        if len(numbers) != 2 or not all(0 < number < 65536 for number in numbers):
            raise BadReport(f"{what}: {annotation.GATEWAY_PORTS} is {text!r}; it must be PORT:BOUND,…")
        found[numbers[0]] = numbers[1]
    return tuple(sorted(found.items()))


def _gateway_of(message: Message, host: Message, trust_domain: str) -> Proxy:
    if message.id != f"host/{host.host}":
        raise BadReport(f"proxy {message.id!r} of host {host.host}: a host's gateway is host/{host.host}")
    return Proxy(
        id=ProxyId(message.id),
        kind=ProxyKind.HOST_GATEWAY,
        namespace=MESH_NAMESPACE,
        service_account=GATEWAY_ACCOUNT,
        host=HostId(host.host),
        outbound_address=message.outbound_address or host.advertise_address,
        inbound_address=host.advertise_address,
        inbound_port=message.inbound_port or host.gateway_port,
        trust_domain=trust_domain,
        gateway_address=host.advertise_address,
        gateway_port=host.gateway_port or message.inbound_port,
    )


def _port_of(message: Message, what: str) -> WorkloadPort:
    for number in (message.number, message.app_port or message.number):
        if not 0 < number < 65536:
            raise BadReport(f"{what}: port {number}; it must be 1 to 65535")
    try:
        protocol = Protocol(message.protocol or Protocol.AUTO)
    except ValueError:
        # A newer agent's word: bytes pass in any case.
        protocol = Protocol.TCP
    return WorkloadPort(message.number, message.app_port or message.number, protocol, message.listening)


def _address(text: str, what: str) -> str:
    if text:
        try:
            socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)
        except OSError as error:
            raise BadReport(f"{what}: {text!r} is no IP address") from error
    return text


def resource_message(resource: Resource) -> Message:
    """A resource as it goes to an agent."""
    message = pb.Resource(
        type_url=resource.type,
        name=resource.name,
        version=resource.version,
        wire=resource.wire,
        aliases=resource.aliases,
        security=resource.security,
    )
    for ref in resource.refs:
        message.refs.add(type_url=ref.type, name=ref.name)
    return message


def removed_message(name: Name) -> Message:
    return pb.Removed(type_url=name.type, name=name.name)


def name_of(message: Message) -> Name | None:
    """The name in any message with ``type_url`` and ``name``; ``None``: a type that isn't served."""
    kind = _TYPES.get(message.type_url)
    return None if kind is None else Name(kind, message.name)


def type_of(url: str) -> TypeUrl | None:
    return _TYPES.get(url)
