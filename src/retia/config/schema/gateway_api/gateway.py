"""``GatewayClass``, ``Gateway`` and ``ListenerSet``: where traffic enters, and who may attach to it."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated

from pydantic import Field, Strict

from retia.config import names
from retia.config.codes import Code
from retia.config.schema.base import FrozenMap, Model, Problem
from retia.config.schema.gateway_api.types import (
    GROUP,
    AnnotationKey,
    AnnotationValue,
    ControllerName,
    GatewayDefaultScope,
    Group,
    Hostname,
    KindName,
    LabelKey,
    LabelSelector,
    LabelValue,
    Namespace,
    NotEmpty,
    ObjectName,
    ObjectReference,
    Options,
    SecretObjectReference,
    SectionName,
    count_problems,
    named_once,
    pattern,
)
from retia.config.schema.types import Port, Text, duplicates

_DOMAIN = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"


class GatewayClass(Model):
    """Who serves the Gateways that name it."""

    controller_name: ControllerName
    """``retia.dev/gateway-controller``: this mesh; classes of others are left alone."""
    parameters_ref: ObjectReference | None = None
    description: Annotated[str, Strict(), Field(max_length=64)] | None = None


ProtocolName = Annotated[
    str,
    Strict(),
    pattern(
        rf"[a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?|{_DOMAIN}/[A-Za-z0-9]+",
        "must be HTTP, HTTPS, TLS, TCP, UDP or a protocol with its domain",
        most=255,
    ),
]


class TLSMode(StrEnum):
    TERMINATE = "Terminate"
    PASSTHROUGH = "Passthrough"


class ListenerTLS(Model):
    mode: TLSMode = TLSMode.TERMINATE
    certificate_refs: tuple[SecretObjectReference, ...] = ()
    """Secrets of type ``kubernetes.io/tls``; in another namespace with its ReferenceGrant."""
    options: Options = ()

    def problems(self) -> Iterator[Problem]:
        yield from count_problems("certificateRefs", self.certificate_refs, 64)
        if self.mode is TLSMode.TERMINATE and not self.certificate_refs and not self.options:
            yield Problem(
                ("certificateRefs",), "is missing; mode Terminate needs a certificate", Code.MISSING_FIELD
            )


class FromNamespaces(StrEnum):
    ALL = "All"
    SELECTOR = "Selector"
    SAME = "Same"
    NONE = "None"


class RouteNamespaces(Model):
    from_: Annotated[FromNamespaces, Field(alias="from")] = FromNamespaces.SAME
    selector: LabelSelector | None = None
    """Namespaces by their labels; read where ``from`` is ``Selector``."""

    def problems(self) -> Iterator[Problem]:
        if self.from_ is FromNamespaces.NONE:
            yield Problem(("from",), "is None; it must be one of All, Selector, Same", Code.BAD_VALUE)


class ListenerNamespaces(Model):
    from_: Annotated[FromNamespaces, Field(alias="from")] = FromNamespaces.NONE
    selector: LabelSelector | None = None


class RouteGroupKind(Model):
    group: Group = GROUP
    kind: KindName


class AllowedRoutes(Model):
    namespaces: RouteNamespaces = RouteNamespaces()
    kinds: tuple[RouteGroupKind, ...] = ()
    """Empty: all kinds that the protocol can carry."""

    def problems(self) -> Iterator[Problem]:
        yield from count_problems("kinds", self.kinds, 8)


class Listener(Model):
    name: SectionName
    hostname: Hostname | None = None
    """Absent: all hosts."""
    port: Port
    protocol: ProtocolName
    tls: ListenerTLS | None = None
    allowed_routes: AllowedRoutes = AllowedRoutes()

    def problems(self) -> Iterator[Problem]:
        if self.protocol in ("HTTP", "TCP", "UDP") and self.tls is not None:
            yield Problem(("tls",), f"must not be given for protocol {self.protocol}")
        if self.protocol == "HTTPS" and self.tls is not None and self.tls.mode is TLSMode.PASSTHROUGH:
            yield Problem(("tls", "mode"), "is Passthrough; protocol HTTPS needs Terminate", Code.BAD_VALUE)
        if self.protocol == "TLS" and self.tls is None:
            yield Problem(("tls",), "is missing; protocol TLS needs a mode", Code.MISSING_FIELD)
        if self.protocol in ("TCP", "UDP") and self.hostname:
            yield Problem(("hostname",), f"must not be given for protocol {self.protocol}")


def listener_problems(listeners: tuple[Listener, ...]) -> Iterator[Problem]:
    """The rules between the listeners of one object."""
    yield from count_problems("listeners", listeners, 64)
    yield from named_once("listeners", listeners)
    for index, _ in duplicates((each.port, each.protocol, each.hostname) for each in listeners):
        yield Problem(
            ("listeners", index), "has the port, protocol and hostname of another listener; one must differ"
        )


class FrontendValidationMode(StrEnum):
    VALID_ONLY = "AllowValidOnly"
    INSECURE_FALLBACK = "AllowInsecureFallback"


class FrontendTLSValidation(Model):
    ca_certificate_refs: Annotated[tuple[ObjectReference, ...], NotEmpty]
    """ConfigMaps with the key ``ca.crt``."""
    mode: FrontendValidationMode = FrontendValidationMode.VALID_ONLY

    def problems(self) -> Iterator[Problem]:
        yield from count_problems("caCertificateRefs", self.ca_certificate_refs, 16)


class TLSConfig(Model):
    validation: FrontendTLSValidation | None = None
    """How certificates of clients are checked; absent: none is asked for."""


class TLSPortConfig(Model):
    port: Port
    tls: TLSConfig


class FrontendTLSConfig(Model):
    default: TLSConfig
    per_port: tuple[TLSPortConfig, ...] = ()
    """Instead of ``default`` for HTTPS listeners of that port."""

    def problems(self) -> Iterator[Problem]:
        for index, port in duplicates(each.port for each in self.per_port):
            yield Problem(("perPort", index, "port"), f"is {port}, which is there already")


class GatewayBackendTLS(Model):
    client_certificate_ref: SecretObjectReference | None = None


class GatewayTLSConfig(Model):
    backend: GatewayBackendTLS | None = None
    frontend: FrontendTLSConfig | None = None


class GatewayAddress(Model):
    type: Text = "IPAddress"
    value: Annotated[str, Strict(), Field(max_length=253)] = ""

    def problems(self) -> Iterator[Problem]:
        if self.type == "IPAddress" and self.value and not names.is_ip(self.value):
            yield Problem(("value",), f"is {self.value!r}; it must be an IP address", Code.BAD_VALUE)


class LocalParametersReference(Model):
    group: Group
    kind: KindName
    name: ObjectName


class GatewayInfrastructure(Model):
    labels: FrozenMap[LabelKey, LabelValue] = ()
    annotations: FrozenMap[AnnotationKey, AnnotationValue] = ()
    parameters_ref: LocalParametersReference | None = None


class AllowedListeners(Model):
    namespaces: ListenerNamespaces = ListenerNamespaces()


class Gateway(Model):
    """Where traffic enters: ports, hosts and certificates, and which routes may attach."""

    gateway_class_name: ObjectName
    """``retia`` is there by itself."""
    listeners: Annotated[tuple[Listener, ...], NotEmpty]
    addresses: tuple[GatewayAddress, ...] = ()
    infrastructure: GatewayInfrastructure | None = None
    allowed_listeners: AllowedListeners | None = None
    """Whose ListenerSets may add listeners; absent: nobody's."""
    tls: GatewayTLSConfig | None = None
    default_scope: GatewayDefaultScope | None = None

    def problems(self) -> Iterator[Problem]:
        yield from listener_problems(self.listeners)
        yield from count_problems("addresses", self.addresses, 16)
        for index, pair in duplicates((each.type, each.value) for each in self.addresses if each.value):
            yield Problem(("addresses", index, "value"), f"is {pair[1]}, which is there already")


class ParentGatewayReference(Model):
    group: Group = GROUP
    kind: KindName = "Gateway"
    name: ObjectName
    namespace: Namespace | None = None


class ListenerSet(Model):
    """More listeners for a Gateway, from another hand."""

    parent_ref: ParentGatewayReference
    listeners: Annotated[tuple[Listener, ...], NotEmpty]

    def problems(self) -> Iterator[Problem]:
        yield from listener_problems(self.listeners)
