"""VirtualService: where requests and connections go, by what they are.

:func:`http_rules` and :func:`tcp_rules` are a sidecar's questions; :func:`rules_of` and :func:`tcp_rules_of`
read given objects for any gateway.
"""

from retia.policy.routing.choose import MESH, gateways_of, holds_for
from retia.policy.routing.forms import HttpRule, HttpRules, TcpRule, TcpRules
from retia.policy.routing.resolve import default_retry, http_rules, rules_of
from retia.policy.routing.tcp import tcp_rules, tcp_rules_of

__all__ = [
    "MESH",
    "HttpRule",
    "HttpRules",
    "TcpRule",
    "TcpRules",
    "default_retry",
    "gateways_of",
    "holds_for",
    "http_rules",
    "rules_of",
    "tcp_rules",
    "tcp_rules_of",
]
