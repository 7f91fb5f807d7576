"""The names that the specification and this mesh use."""

from __future__ import annotations

from retia.model.ids import Namespace
from retia.model.objects import ObjectRef

GROUP = "gateway.networking.k8s.io"
GATEWAY = f"Gateway.{GROUP}"
"""The kind, as objects of the mesh are named (Istio has a ``Gateway`` too)."""
LISTENER_SETS = ("ListenerSet", "XListenerSet")
HTTP_ROUTE = "HTTPRoute"
GRPC_ROUTE = "GRPCRoute"
TCP_ROUTE = "TCPRoute"
TLS_ROUTE = "TLSRoute"
UDP_ROUTE = "UDPRoute"
ROUTES = (HTTP_ROUTE, GRPC_ROUTE, TLS_ROUTE, TCP_ROUTE, UDP_ROUTE)

CONTROLLER = "retia.dev/gateway-controller"
MESH_CONTROLLER = "retia.dev/mesh-controller"
"""Who answers for routes whose parent is a Service."""
DEFAULT_CLASS = "retia"
"""The GatewayClass that is there without anybody applying it."""
GATEWAY_LABEL = "gateway.networking.k8s.io/gateway-name"
"""A gateway proxy with this label serves the Gateway of that name in its namespace."""
NAMESPACE_LABEL = "kubernetes.io/metadata.name"
"""Every namespace has this label with its own name, as in Kubernetes."""


def group_of(kind: str) -> str:
    """The group of a parent's kind, as references name it."""
    if kind == "Service":
        return ""
    return "gateway.networking.x-k8s.io" if kind == "XListenerSet" else GROUP


def short_kind(kind: str) -> str:
    """The kind as documents name it."""
    return kind.partition(".")[0]


def parent_key(kind: str, namespace: str, name: str) -> str:
    """The key of the index ``route-parent``."""
    return f"{short_kind(kind)}/{namespace}/{name}"


def key_of(ref: ObjectRef) -> str:
    return parent_key(ref.kind, ref.namespace, ref.name)


def gateway_ref(namespace: str, name: str) -> ObjectRef:
    return ObjectRef(GATEWAY, Namespace(namespace), name)
