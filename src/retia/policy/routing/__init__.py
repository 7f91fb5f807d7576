"""VirtualService: where requests go, by what they are."""

from retia.policy.routing.forms import HttpRule, HttpRules, TcpRoute
from retia.policy.routing.resolve import default_retry, http_rules
from retia.policy.routing.tcp import tcp_route

__all__ = ["HttpRule", "HttpRules", "TcpRoute", "default_retry", "http_rules", "tcp_route"]
