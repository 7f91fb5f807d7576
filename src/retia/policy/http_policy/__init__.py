"""HttpPolicy: what is done to requests and responses on the way."""

from retia.policy.http_policy.resolve import INDEX, Handling, gateway_handling, port_handling

__all__ = ["INDEX", "Handling", "gateway_handling", "port_handling"]
