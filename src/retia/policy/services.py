"""Services and endpoints as objects declare them: one object in, facts out."""

from __future__ import annotations

import ipaddress
from typing import Any

from retia.model.ids import Host, Namespace, SpiffeId
from retia.model.mesh import (
    Endpoint,
    Labels,
    MeshSettings,
    Resolution,
    Service,
    ServicePort,
    Wire,
    WorkloadPort,
    labels_of,
)
from retia.model.objects import ConfigObject

TLS_MODE_LABEL = "security.istio.io/tlsMode"
"""``istio`` on an endpoint that no agent registers: a proxy of the mesh stands before it."""
UNIX = "unix://"
_RESOLUTIONS = {
    "NONE": Resolution.PASSTHROUGH,
    "STATIC": Resolution.STATIC,
    "DYNAMIC_DNS": Resolution.DYNAMIC,
}
"""Others are some kind of DNS."""
_NEAREST = (
    "topology.istio.io/network",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
    "topology.istio.io/subzone",
)
_DISTRIBUTION = {
    "PreferClose": _NEAREST,
    "PreferSameZone": _NEAREST,
    "PreferSameNode": (*_NEAREST, "kubernetes.io/hostname"),
}
"""What a Service's ``trafficDistribution`` prefers, as Istio reads it."""
EXPORT_ANNOTATION = "networking.istio.io/exportTo"


def selector_of(obj: ConfigObject) -> Labels:
    """The labels by which an object chooses workloads; empty: it chooses none."""
    if obj.ref.kind == "Service":
        return labels_of(obj.spec.selector)
    selector = obj.spec.workload_selector
    return labels_of(selector.labels) if selector is not None else ()


def service_of(obj: ConfigObject, host: Host, vip: str, settings: MeshSettings) -> Service:
    """The service that a ``Service`` or ``ServiceEntry`` declares under one of its hosts."""
    make = _kubernetes if obj.ref.kind == "Service" else _entry
    return make(obj, host, vip, settings)


def _kubernetes(obj: ConfigObject, host: Host, vip: str, settings: MeshSettings) -> Service:
    spec = obj.spec
    ports = tuple(
        ServicePort(
            p.port,
            p.speaks,
            p.name,
            p.target_port if isinstance(p.target_port, int) else 0,
            p.target_port if isinstance(p.target_port, str) else "",
        )
        for p in spec.ports
        if p.speaks is not None
    )
    own = spec.cluster_ip if is_address(spec.cluster_ip) else ""
    named = dict(obj.annotations).get(EXPORT_ANNOTATION, "")
    return Service(
        host,
        obj.ref.namespace,
        obj.ref.name,
        ports,
        vip=own or vip,
        resolution=Resolution.DNS if spec.external_name else Resolution.STATIC,
        external=bool(spec.external_name),
        origin=str(obj.ref),
        export_to=tuple(part.strip() for part in named.split(",") if part.strip()) or settings.service_export,
        networks=tuple(a for a in spec.cluster_ips if is_address(a) and a != own),
        nearest=_DISTRIBUTION.get(spec.traffic_distribution, ()),
        sticky=spec.session_affinity == "ClientIP",
        alias=spec.external_name or "",
    )


def _entry(obj: ConfigObject, host: Host, vip: str, settings: MeshSettings) -> Service:
    spec = obj.spec
    ports = tuple(
        ServicePort(p.number, p.speaks, p.name, p.target_port or 0)
        for p in spec.ports
        if p.speaks is not None
    )
    resolution = _RESOLUTIONS.get(str(spec.resolution), Resolution.DNS)
    own = next((a for a in spec.addresses if is_address(a)), "")
    if host.startswith("*") and resolution is Resolution.PASSTHROUGH:
        # Each name below it has an address of its own, which is what was dialled.
        vip = ""
    return Service(
        host,
        obj.ref.namespace,
        obj.ref.name,
        ports,
        vip=own or vip,
        resolution=resolution,
        external=str(spec.location) != "MESH_INTERNAL",
        origin=str(obj.ref),
        export_to=spec.export_to or settings.service_export,
        networks=tuple(a for a in spec.addresses if a != own),
        alt_names=spec.subject_alt_names,
        single_address=str(spec.resolution) == "DNS_ROUND_ROBIN",
    )


def wants_address(service: Service) -> bool:
    """Whether a service without a virtual address is to get one, so that its names resolve to it."""
    if service.vip or not service.ports:
        return False
    return not (service.host.startswith("*") and service.resolution is Resolution.PASSTHROUGH)


def listed_endpoints(obj: ConfigObject, service: Service, trust_domain: str) -> list[Endpoint]:
    """The endpoints that the object itself names."""
    if obj.ref.kind == "Service":
        name = obj.spec.external_name
        return [_plain(p, name, p.app_port) for p in service.ports] if name else []
    namespace = obj.ref.namespace
    return [e for each in obj.spec.endpoints for e in entry_endpoints(each, service, namespace, trust_domain)]


def entry_endpoints(entry: Any, service: Service, namespace: Namespace, trust_domain: str) -> list[Endpoint]:
    """The endpoints of a ``WorkloadEntry``, one for each port of the service.

    It is spoken to plainly, unless its labels say that a proxy of the mesh stands before it. Without an
    address it is behind a network's gateway, and there is none to dial.
    """
    named = dict(entry.ports)
    if not entry.address:
        return []
    more: dict[str, Any] = {
        "labels": labels_of(entry.labels),
        "locality": entry.locality,
        "weight": entry.weight or 1,
    }
    if entry.service_account:
        more["identity"] = SpiffeId(f"spiffe://{trust_domain}/ns/{namespace}/sa/{entry.service_account}")
    behind_proxy = dict(entry.labels).get(TLS_MODE_LABEL) == "istio"
    found = []
    for port in service.ports:
        at = named.get(port.name) or named.get(port.target_name) or port.app_port
        wire = Wire.MTLS if behind_proxy else Wire.PLAIN
        found.append(Endpoint(port.number, entry.address, at, wire, app_port=at, **more))
    return found


def _plain(port: ServicePort, address: str, at: int) -> Endpoint:
    return Endpoint(port.number, address, at, Wire.PLAIN, app_port=at)


def port_of(port: WorkloadPort) -> ServicePort:
    """A workload's port as one of the service that it names."""
    return ServicePort(port.number, port.protocol, f"{port.protocol}-{port.number}", port.app_port)


def matching_port(
    ports: tuple[WorkloadPort, ...], wanted: ServicePort, *, by_name: bool
) -> WorkloadPort | None:
    """The workload's port behind a service's port.

    It is that of the same number where the workload names the service, else (and for a service that selects
    workloads) that of the target port. A workload's ports have no names: a ``targetPort`` that is a name
    means the service's own number, else the only port of its protocol, else the only port.
    """
    same = next((p for p in ports if by_name and p.number == wanted.number), None)
    same = same or next((p for p in ports if wanted.app_port in (p.app_port, p.number)), None)
    if same is not None or not wanted.target_name:
        return same
    alike = [p for p in ports if p.protocol is wanted.protocol] or list(ports)
    return alike[0] if len(alike) == 1 else None


def is_address(text: str) -> bool:
    """An IP address, not a network."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
