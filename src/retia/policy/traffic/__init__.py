"""DestinationRule and automatic mutual TLS: how a client treats a destination."""

from retia.policy.traffic.forms import (
    Algorithm,
    Balancing,
    HashKind,
    HashOn,
    HttpPool,
    Outlier,
    Peers,
    ProxyHeader,
    RetryBudget,
    TcpPool,
    Tls,
    TlsMode,
    TrafficPolicy,
    Tunnel,
)
from retia.policy.traffic.locality import weighs_localities
from retia.policy.traffic.peers import (
    Dial,
    DialGroup,
    dial_groups,
    dials,
    endpoint_dial,
    endpoint_peers,
    peers,
    pinned_endpoint,
)
from retia.policy.traffic.resolve import traffic_policy

__all__ = [
    "Algorithm",
    "Balancing",
    "Dial",
    "DialGroup",
    "HashKind",
    "HashOn",
    "HttpPool",
    "Outlier",
    "Peers",
    "ProxyHeader",
    "RetryBudget",
    "TcpPool",
    "Tls",
    "TlsMode",
    "TrafficPolicy",
    "Tunnel",
    "dial_groups",
    "dials",
    "endpoint_dial",
    "endpoint_peers",
    "peers",
    "pinned_endpoint",
    "traffic_policy",
    "weighs_localities",
]
