"""Which kinds there are: read, known but not supported yet, and no business of a mesh.

This table and ``retia.config.support`` are the whole of what this version does not do with users' documents.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from retia.config.schema import (
    ConfigMap,
    DestinationRule,
    EnvoyFilter,
    Model,
    PeerAuthentication,
    Secret,
    Service,
    ServiceEntry,
    VirtualService,
    WorkloadEntry,
    gateway_api,
)
from retia.config.schema.gateway import Gateway as IstioGateway
from retia.config.schema.http_policy import HttpPolicy
from retia.config.schema.mesh_config import IstioOperator
from retia.config.schema.namespace import NamespaceSpec
from retia.config.schema.overload_policy import OverloadPolicy
from retia.config.schema.proxy_config import ProxyConfig
from retia.config.schema.rate_limit_policy import RateLimitPolicy
from retia.config.schema.redis_route import RedisRoute
from retia.config.schema.rollout import Rollout
from retia.config.schema.sidecar import Sidecar
from retia.config.schema.traffic_lane import TrafficLane
from retia.config.schema.workload_group import WorkloadGroup

NETWORKING = "networking.istio.io"
SECURITY = "security.istio.io"
GATEWAY_API = "gateway.networking.k8s.io"
GATEWAY_API_X = "gateway.networking.x-k8s.io"
_ISTIO_VERSIONS = ("v1", "v1beta1", "v1alpha3")


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind that is read."""

    group: str
    kind: str
    """As documents name it. Two groups may have one name (``Gateway``)."""
    versions: tuple[str, ...]
    model: type[Model]
    namespaced: bool = True
    """False: its objects belong to no namespace; theirs is the empty one."""
    roots: tuple[str, ...] = ("spec",)
    """Where in a document the content stands: below ``spec``, or beside ``metadata`` (``data``)."""
    qualified: bool = False
    """Another group has a kind of the same name that is known by it alone."""

    @property
    def name(self) -> str:
        """What the kind is called inside the mesh and by its users: unique, as ``kubectl`` would need it."""
        return f"{self.kind}.{self.group}" if self.qualified else self.kind

    @property
    def api_version(self) -> str:
        """The newest version, as ``apiVersion`` says it."""
        return f"{self.group}/{self.versions[0]}" if self.group else self.versions[0]


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        kind.name: kind
        for kind in (
            Kind(NETWORKING, "VirtualService", _ISTIO_VERSIONS, VirtualService),
            Kind(NETWORKING, "DestinationRule", _ISTIO_VERSIONS, DestinationRule),
            Kind(NETWORKING, "ServiceEntry", _ISTIO_VERSIONS, ServiceEntry),
            Kind(NETWORKING, "WorkloadEntry", _ISTIO_VERSIONS, WorkloadEntry),
            Kind(NETWORKING, "WorkloadGroup", _ISTIO_VERSIONS, WorkloadGroup),
            Kind(NETWORKING, "Sidecar", _ISTIO_VERSIONS, Sidecar),
            Kind(NETWORKING, "ProxyConfig", ("v1", "v1beta1"), ProxyConfig),
            Kind("install.istio.io", "IstioOperator", ("v1alpha1",), IstioOperator),
            Kind("", "Namespace", ("v1",), NamespaceSpec, namespaced=False),
            Kind(NETWORKING, "EnvoyFilter", ("v1alpha3",), EnvoyFilter),
            Kind(SECURITY, "PeerAuthentication", _ISTIO_VERSIONS, PeerAuthentication),
            Kind("", "Service", ("v1",), Service),
            Kind("retia.dev", "RedisRoute", ("v1alpha1",), RedisRoute),
            Kind("retia.dev", "Rollout", ("v1alpha1",), Rollout),
            Kind("retia.dev", "TrafficLane", ("v1alpha1",), TrafficLane),
            Kind("retia.dev", "RateLimitPolicy", ("v1alpha1",), RateLimitPolicy),
            Kind("retia.dev", "OverloadPolicy", ("v1alpha1",), OverloadPolicy),
            Kind("retia.dev", "HttpPolicy", ("v1alpha1",), HttpPolicy),
            Kind(NETWORKING, "Gateway", _ISTIO_VERSIONS, IstioGateway),
            Kind("", "Secret", ("v1",), Secret, roots=("type", "data", "stringData", "immutable")),
            Kind("", "ConfigMap", ("v1",), ConfigMap, roots=("data", "binaryData", "immutable")),
            Kind(GATEWAY_API, "GatewayClass", ("v1", "v1beta1"), gateway_api.GatewayClass, namespaced=False),
            Kind(GATEWAY_API, "Gateway", ("v1", "v1beta1"), gateway_api.Gateway, qualified=True),
            Kind(GATEWAY_API, "ListenerSet", ("v1",), gateway_api.ListenerSet),
            Kind(GATEWAY_API_X, "XListenerSet", ("v1alpha1",), gateway_api.ListenerSet),
            Kind(GATEWAY_API, "HTTPRoute", ("v1", "v1beta1"), gateway_api.HTTPRoute),
            Kind(GATEWAY_API, "GRPCRoute", ("v1", "v1alpha2"), gateway_api.GRPCRoute),
            Kind(GATEWAY_API, "TCPRoute", ("v1", "v1alpha2"), gateway_api.TCPRoute),
            Kind(GATEWAY_API, "TLSRoute", ("v1", "v1alpha3", "v1alpha2"), gateway_api.TLSRoute),
            Kind(GATEWAY_API, "ReferenceGrant", ("v1", "v1beta1", "v1alpha2"), gateway_api.ReferenceGrant),
            Kind(GATEWAY_API, "BackendTLSPolicy", ("v1", "v1alpha3"), gateway_api.BackendTLSPolicy),
        )
    }
)
"""The kinds that are read, by name."""


def find(group: str, kind: str) -> Kind | None:
    """The kind that a document's ``apiVersion`` and ``kind`` mean."""
    return _BY_GROUP.get((group, kind))


_BY_GROUP = {(kind.group, kind.kind): kind for kind in KINDS.values()}

NOT_YET: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        SECURITY: ("AuthorizationPolicy", "RequestAuthentication"),
        "telemetry.istio.io": ("Telemetry",),
        "extensions.istio.io": ("TrafficExtension", "WasmPlugin"),
        GATEWAY_API: ("UDPRoute",),
        GATEWAY_API_X: ("XBackend", "XBackendTrafficPolicy", "XMesh"),
        "inference.networking.k8s.io": ("InferencePool",),
    }
)
"""Mesh configuration that this version does not support: an error, never ignored."""

OWN_GROUP = "retia.dev"
"""Every kind of it is mesh configuration; none is supported yet."""

CORE_KINDS = frozenset(
    {
        "Binding",
        "ComponentStatus",
        "Endpoints",
        "Event",
        "LimitRange",
        "Node",
        "PersistentVolume",
        "PersistentVolumeClaim",
        "Pod",
        "PodTemplate",
        "ReplicationController",
        "ResourceQuota",
        "ServiceAccount",
    }
)
"""Kinds of Kubernetes' core group that are no mesh configuration."""

_KUBERNETES_GROUPS = frozenset({"apps", "autoscaling", "batch", "extensions", "policy"})
_KUBERNETES_SUFFIX = ".k8s.io"


def is_kubernetes_group(group: str) -> bool:
    """A group of Kubernetes itself other than core (whose kinds are listed); the mesh groups are not."""
    return group in _KUBERNETES_GROUPS or (group.endswith(_KUBERNETES_SUFFIX) and group not in NOT_YET)


def known_groups() -> frozenset[str]:
    """The groups whose kinds are all known here."""
    return frozenset({kind.group for kind in KINDS.values()} | set(NOT_YET))


def kinds_of(group: str) -> list[str]:
    """The kinds of a group that are read, sorted."""
    return sorted(kind.kind for kind in KINDS.values() if kind.group == group)
