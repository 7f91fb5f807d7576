"""Endpoints (EDS): addresses to connect to, for this proxy's place in the world."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from envoy.config.endpoint.v3 import endpoint_pb2

from retia.model.mesh import ProxyKind, Wire
from retia.model.resource import Built
from retia.model.snapshot import View
from retia.policy.lanes import selects
from retia.policy.registry import endpoints, service
from retia.policy.traffic import (
    Dial,
    DialGroup,
    dial_groups,
    endpoint_dial,
    pinned_endpoint,
    traffic_policy,
)
from retia.policy.traffic.locality import parts
from retia.translate import pb
from retia.translate.names import ByServerName, ClusterName, Outbound, Pinned
from retia.translate.sources import service_provenance

UNIX = "unix://"
MATCH_METADATA = "envoy.transport_socket_match"


def build_endpoints(view: View, name: ClusterName) -> Built:
    """The addresses of a destination; no message where it doesn't exist."""
    match name:
        case Outbound():
            found = dial_groups(view, name.host, name.port, name.subset)
        case Pinned():
            found = _pinned(view, name)
        case ByServerName():
            found = _local(view, name)
        case _:
            return Built(str(name), None)
    known = service(view, name.host)
    if found is None or known is None:
        return Built(str(name), None)
    assignment = endpoint_pb2.ClusterLoadAssignment()
    assignment.cluster_name = str(name)
    put_groups(assignment, found)
    return Built(str(name), pb.dump(assignment), provenance=service_provenance(known))


def put_groups(assignment: Any, groups: tuple[DialGroup, ...]) -> None:
    """Fill a ``ClusterLoadAssignment``."""
    for group in groups:
        if group.dials:
            _put_group(assignment.endpoints.add(), group)


def _put_group(target: Any, group: DialGroup) -> None:
    if group.priority:
        target.priority = group.priority
    if group.weight:
        target.load_balancing_weight.value = group.weight
        # Envoy reads no weight where there is no locality: it would be 0, and nobody called.
        target.locality.SetInParent()
    if group.locality:
        region, zone, subzone = parts(group.locality)
        target.locality.region, target.locality.zone, target.locality.sub_zone = region, zone, subzone
    weighted = any(dial.weight != 1 for dial in group.dials)
    add = target.lb_endpoints.add
    for dial in group.dials:
        endpoint = add()
        put_address(endpoint.endpoint.address, dial.address, dial.port)
        if weighted:
            endpoint.load_balancing_weight.value = dial.weight
        if dial.plain:
            endpoint.metadata.filter_metadata[MATCH_METADATA].fields["wire"].string_value = "plain"


def put_address(target: Any, address: str, port: int) -> None:
    """Fill an ``Address``: an IP address, a host name, or a unix socket, which has no port."""
    if address.startswith(UNIX):
        target.pipe.path = address.removeprefix(UNIX)
        return
    socket = target.socket_address
    socket.address = address
    socket.port_value = port


def _pinned(view: View, name: Pinned) -> tuple[DialGroup, ...] | None:
    endpoint = view.query(pinned_endpoint, (name.host, name.service_port, name.address))
    policy = view.query(traffic_policy, (name.host, name.service_port, ""))
    if endpoint is None or policy is None:
        return None
    return (DialGroup((endpoint_dial(view, endpoint, policy.tls),)),)


def _local(view: View, name: ByServerName) -> tuple[DialGroup, ...]:
    """At a host gateway: the instances of this host, by their published addresses.

    A subset that only the callers' namespaces define has no labels here; all local instances then stand
    behind it. At a gateway that passes TLS on by such names: all that speak the mesh's TLS.
    """
    if view.proxy("kind") is ProxyKind.GATEWAY:
        groups = dial_groups(view, name.host, name.port, name.subset) or ()
        return tuple(replace(g, dials=tuple(d for d in g.dials if not d.plain)) for g in groups)
    policy = view.query(traffic_policy, (name.host, name.port, name.subset))
    labels = policy.labels if policy is not None else ()
    here = view.proxy("host")
    found = tuple(
        sorted(
            Dial(e.address, e.port, False, e.weight)
            for e in endpoints(view, name.host)
            if e.service_port == name.port
            and e.host == here
            and e.wire is Wire.MTLS
            and selects(labels, e.labels)
        )
    )
    return (DialGroup(found),)
