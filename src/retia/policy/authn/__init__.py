"""PeerAuthentication: how an inbound port takes mutual TLS."""

from retia.policy.authn.forms import Inbound, PortMode
from retia.policy.authn.resolve import modes, namespace_has_policies, port_mode

__all__ = ["Inbound", "PortMode", "modes", "namespace_has_policies", "port_mode"]
