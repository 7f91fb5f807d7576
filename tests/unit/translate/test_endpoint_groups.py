"""Groups of endpoints, as Envoy takes them."""

from __future__ import annotations

from envoy.config.endpoint.v3 import endpoint_pb2

from retia.policy.traffic.peers import Dial, DialGroup
from retia.translate.endpoints import put_groups


def test_a_weight_stands_beside_a_locality_though_it_be_empty() -> None:
    """Envoy passes over the weight of a group without a locality, and then calls none of its endpoints."""
    assignment = endpoint_pb2.ClusterLoadAssignment()
    dials = (Dial("10.0.0.1", 80, False, 1),)
    put_groups(assignment, (DialGroup(dials, weight=1), DialGroup(dials)))
    weighted, plain = assignment.endpoints
    assert weighted.HasField("locality") and weighted.load_balancing_weight.value == 1
    assert not plain.HasField("locality")
