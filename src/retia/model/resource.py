"""xDS resources: the unit of translation, caching and delivery."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from retia.model.finding import Finding
from retia.model.objects import ObjectRef


class TypeUrl(StrEnum):
    """The resource types served. The order of members is the order in which they are sent: what is referred
    to before what refers (clusters, endpoints, listeners, routes, virtual hosts)."""

    CLUSTER = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
    ENDPOINTS = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
    SECRET = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
    LISTENER = "type.googleapis.com/envoy.config.listener.v3.Listener"
    ROUTE = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
    VIRTUAL_HOST = "type.googleapis.com/envoy.config.route.v3.VirtualHost"

    @property
    def short(self) -> str:
        return _SHORT[self]


_SHORT = {
    TypeUrl.CLUSTER: "CDS",
    TypeUrl.ENDPOINTS: "EDS",
    TypeUrl.SECRET: "SDS",
    TypeUrl.LISTENER: "LDS",
    TypeUrl.ROUTE: "RDS",
    TypeUrl.VIRTUAL_HOST: "VHDS",
}


@dataclass(frozen=True, slots=True)
class Name:
    """A resource's type and name."""

    type: TypeUrl
    name: str

    def __str__(self) -> str:
        return f"{self.type.short} {self.name}"


@dataclass(frozen=True, slots=True)
class Provenance:
    """One object, or field of one, that shaped a resource."""

    ref: ObjectRef
    field: str = ""


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource, serialised once.

    ``wire`` is a whole serialised ``envoy.service.discovery.v3.Resource`` (name, version, aliases and the
    packed message; no message for a name that is known not to exist). ``version`` is a hash of the content.
    ``refs`` are the resources that this one needs at the proxy before it is useful: a virtual host's
    clusters, a cluster's endpoints. The stream sends those first.
    """

    type: TypeUrl
    name: str
    version: str
    wire: bytes
    aliases: tuple[str, ...] = ()
    refs: tuple[Name, ...] = ()
    provenance: tuple[Provenance, ...] = ()
    findings: tuple[Finding, ...] = ()
    exists: bool = True
    """False: the name is known not to exist (a virtual host is then answered without a message, other types
    by ``removed_resources``)."""
    security: bool = False
    """Shaped by a security object: if a new version is rejected, the last good one may not stay."""


@dataclass(frozen=True, slots=True)
class Built:
    """What a builder returns: the message's bytes, or ``None`` for a name that does not exist.

    ``name`` is the canonical name when a builder was asked for an alias, otherwise the name asked for.
    """

    name: str
    message: bytes | None
    aliases: tuple[str, ...] = ()
    refs: tuple[Name, ...] = ()
    provenance: tuple[Provenance, ...] = ()
    findings: tuple[Finding, ...] = ()
    security: bool = False
