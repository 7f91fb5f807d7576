"""DestinationRule and automatic mutual TLS: how a client treats a destination."""

from retia.policy.traffic.forms import (
    Algorithm,
    Balancing,
    HashKind,
    HashOn,
    HttpPool,
    Outlier,
    Peers,
    TcpPool,
    Tls,
    TlsMode,
    TrafficPolicy,
)
from retia.policy.traffic.peers import Dial, dials, endpoint_dial, endpoint_peers, peers, pinned_endpoint
from retia.policy.traffic.resolve import traffic_policy

__all__ = [
    "Algorithm",
    "Balancing",
    "Dial",
    "HashKind",
    "HashOn",
    "HttpPool",
    "Outlier",
    "Peers",
    "TcpPool",
    "Tls",
    "TlsMode",
    "TrafficPolicy",
    "dials",
    "endpoint_dial",
    "endpoint_peers",
    "peers",
    "pinned_endpoint",
    "traffic_policy",
]
