"""The models of the kinds of ``gateway.networking.k8s.io``: every field of the standard and of the
experimental channel, with the defaults and rules of the upstream custom resource definitions.

Five words: a *parent* is what a route attaches to (a Gateway, a ListenerSet, a Service); a *listener* is one
port and host name of a Gateway; a *backend* is where requests go; a *filter* changes a request or its answer;
a *grant* allows a reference into another namespace.
"""

from retia.config.schema.gateway_api.backend_tls_policy import BackendTLSPolicy
from retia.config.schema.gateway_api.gateway import Gateway, GatewayClass, ListenerSet
from retia.config.schema.gateway_api.grpc_route import GRPCRoute
from retia.config.schema.gateway_api.http_route import HTTPRoute
from retia.config.schema.gateway_api.reference_grant import ReferenceGrant
from retia.config.schema.gateway_api.stream_routes import TCPRoute, TLSRoute

__all__ = [
    "BackendTLSPolicy",
    "GRPCRoute",
    "Gateway",
    "GatewayClass",
    "HTTPRoute",
    "ListenerSet",
    "ReferenceGrant",
    "TCPRoute",
    "TLSRoute",
]
