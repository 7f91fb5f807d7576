"""RateLimitPolicy: how much is let through, and where it is counted."""

from retia.policy.ratelimit.forms import (
    Condition,
    ConnectionLimit,
    Key,
    KeyKind,
    Limit,
    Limits,
    Test,
    TestKind,
    Throttle,
)
from retia.policy.ratelimit.resolve import INDEX, gateway_limits, port_limits, rule_limits

__all__ = [
    "INDEX",
    "Condition",
    "ConnectionLimit",
    "Key",
    "KeyKind",
    "Limit",
    "Limits",
    "Test",
    "TestKind",
    "Throttle",
    "gateway_limits",
    "port_limits",
    "rule_limits",
]
