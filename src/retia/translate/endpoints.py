"""Endpoints (EDS): addresses to connect to, for this proxy's place in the world."""

from __future__ import annotations

from typing import Any

from envoy.config.endpoint.v3 import endpoint_pb2

from retia.model.mesh import Wire, labels_match
from retia.model.resource import Built
from retia.model.snapshot import View
from retia.policy.registry import endpoints, service
from retia.policy.traffic import Dial, dials, endpoint_dial, pinned_endpoint, traffic_policy
from retia.translate import pb
from retia.translate.names import ByServerName, ClusterName, Outbound, Pinned
from retia.translate.sources import service_provenance

MATCH_METADATA = "envoy.transport_socket_match"


def build_endpoints(view: View, name: ClusterName) -> Built:
    """The addresses of a destination; no message where it doesn't exist."""
    match name:
        case Outbound():
            found = dials(view, name.host, name.port, name.subset)
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
    if found:
        _put(assignment, found)
    return Built(str(name), pb.dump(assignment), provenance=service_provenance(known))


def _put(assignment: Any, found: tuple[Dial, ...]) -> None:
    """One group for all localities: how near an endpoint is doesn't count yet."""
    weighted = any(dial.weight != 1 for dial in found)
    add = assignment.endpoints.add().lb_endpoints.add
    for dial in found:
        target = add()
        socket = target.endpoint.address.socket_address
        socket.address = dial.address
        socket.port_value = dial.port
        if weighted:
            target.load_balancing_weight.value = dial.weight
        if dial.plain:
            target.metadata.filter_metadata[MATCH_METADATA].fields["wire"].string_value = "plain"


def _pinned(view: View, name: Pinned) -> tuple[Dial, ...] | None:
    endpoint = view.query(pinned_endpoint, (name.host, name.service_port, name.address))
    policy = view.query(traffic_policy, (name.host, name.service_port, ""))
    if endpoint is None or policy is None:
        return None
    return (endpoint_dial(view, endpoint, policy.tls),)


def _local(view: View, name: ByServerName) -> tuple[Dial, ...] | None:
    """At a host gateway: the instances of this host, by their published addresses.

    A subset that only the callers' namespaces define has no labels here; all local instances then stand
    behind it.
    """
    policy = view.query(traffic_policy, (name.host, name.port, name.subset))
    labels = policy.labels if policy is not None else ()
    here = view.proxy("host")
    return tuple(
        sorted(
            Dial(e.address, e.port, False, e.weight)
            for e in endpoints(view, name.host)
            if e.service_port == name.port
            and e.host == here
            and e.wire is Wire.MTLS
            and labels_match(labels, e.labels)
        )
    )
