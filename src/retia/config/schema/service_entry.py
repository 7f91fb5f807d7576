"""``ServiceEntry``: a service that no agent registers. networking.istio.io."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from retia.config import names
from retia.config.codes import Code
from retia.config.schema import protocol
from retia.config.schema.base import Model, Path, Problem
from retia.config.schema.selector import EntrySelector
from retia.config.schema.types import (
    DestinationHost,
    DnsLabel,
    Network,
    Port,
    Text,
    Visibility,
    duplicates,
    export_problems,
)
from retia.config.schema.workload_entry import WorkloadEntry
from retia.model.mesh import Protocol


class Location(StrEnum):
    MESH_EXTERNAL = "MESH_EXTERNAL"
    MESH_INTERNAL = "MESH_INTERNAL"


class Resolution(StrEnum):
    NONE = "NONE"
    """The address that the client dialled."""
    STATIC = "STATIC"
    DNS = "DNS"
    DNS_ROUND_ROBIN = "DNS_ROUND_ROBIN"
    DYNAMIC_DNS = "DYNAMIC_DNS"


_DNS = (Resolution.DNS, Resolution.DNS_ROUND_ROBIN)


class EntryPort(Model):
    """A port of the service (``ServicePort`` in Istio)."""

    number: Port
    protocol: Text = ""
    """HTTP, HTTPS, HTTP2, GRPC, TLS, TCP, MONGO, REDIS, MYSQL or UDP, in any case; empty: detected."""
    name: DnsLabel
    target_port: Port | None = None
    """The port of the endpoints. Absent: ``number``."""

    def problems(self) -> Iterator[Problem]:
        if self.protocol and not protocol.is_known(self.protocol):
            message = f"is {self.protocol}; it must be one of {', '.join(protocol.KNOWN).upper()}"
            yield Problem(("protocol",), message, Code.BAD_VALUE)

    @property
    def speaks(self) -> Protocol | None:
        """``None``: UDP, which is not carried."""
        return protocol.of_name(self.protocol)


class ServiceEntry(Model):
    hosts: Annotated[tuple[DestinationHost, ...], Field(max_length=256)]
    addresses: Annotated[tuple[Network, ...], Field(max_length=256)] = ()
    """Virtual addresses; networks only with resolution NONE or STATIC."""
    ports: Annotated[tuple[EntryPort, ...], Field(max_length=256)] = ()
    location: Location = Location.MESH_EXTERNAL
    resolution: Resolution = Resolution.NONE
    endpoints: Annotated[tuple[WorkloadEntry, ...], Field(max_length=4096)] = ()
    workload_selector: EntrySelector | None = None
    """Workloads and WorkloadEntries of the namespace that are its endpoints."""
    export_to: tuple[Visibility, ...] = ()
    subject_alt_names: tuple[Text, ...] = ()
    """Names that the endpoints' certificates must have one of."""

    def problems(self) -> Iterator[Problem]:
        if not self.hosts:
            yield Problem(("hosts",), "must have at least one host", Code.MISSING_FIELD)
        if self.workload_selector and self.endpoints:
            yield Problem(("workloadSelector",), "must not stand beside endpoints")
        for field, values in (
            ("name", [p.name for p in self.ports]),
            ("number", [p.number for p in self.ports]),
        ):
            for index, value in duplicates(values):
                yield Problem(("ports", index, field), f"is {value}, which is there already")
        yield from self._address_problems()
        yield from self._several_hosts_problems()
        yield from self._resolution_problems()
        yield from export_problems(self.export_to, hidden=True)

    def _address_problems(self) -> Iterator[Problem]:
        if self.resolution in (Resolution.NONE, Resolution.STATIC):
            return
        for index, address in enumerate(self.addresses):
            if "/" in address:
                message = f"is {address}; networks are for resolution NONE and STATIC only"
                yield Problem(("addresses", index), message, Code.CONFLICT)

    def _several_hosts_problems(self) -> Iterator[Problem]:
        if self.resolution is Resolution.NONE or len(self.hosts) < 2:
            return
        for index, port in enumerate(self.ports):
            if port.speaks not in (Protocol.HTTP, Protocol.HTTP2, Protocol.GRPC, Protocol.TLS):
                message = "must be an HTTP or TLS port, because there are several hosts to tell apart"
                yield Problem(("ports", index), message)
                return

    def _resolution_problems(self) -> Iterator[Problem]:
        if self.resolution is Resolution.NONE:
            if self.endpoints:
                yield Problem(("endpoints",), "must not be given with resolution NONE")
        elif self.resolution is Resolution.STATIC:
            for index, endpoint in enumerate(self.endpoints):
                yield from self._endpoint_problems(index, endpoint)
        elif self.resolution in _DNS:
            yield from self._dns_problems()
        else:
            yield from self._dynamic_problems()

    def _endpoint_problems(self, index: int, endpoint: WorkloadEntry) -> Iterator[Problem]:
        path: Path = ("endpoints", index)
        if (
            self.resolution is Resolution.STATIC
            and endpoint.address
            and not (endpoint.is_ip or endpoint.is_unix)
        ):
            message = f"is {endpoint.address}; resolution STATIC needs an IP address (DNS takes names)"
            yield Problem((*path, "address"), message, Code.BAD_VALUE)
        if self.resolution in _DNS and endpoint.is_unix:
            message = (
                f"is {endpoint.address}; resolution {self.resolution} needs an IP address or a host name"
            )
            yield Problem((*path, "address"), message, Code.BAD_VALUE)
        known = {port.name for port in self.ports}
        for name, _ in endpoint.ports:
            if name not in known:
                yield Problem((*path, "ports", name), "names no port of spec.ports", Code.CONFLICT)
        if endpoint.is_unix and len(self.ports) != 1:
            yield Problem(
                (*path, "address"), "is a unix:// address, which needs exactly one port in spec.ports"
            )

    def _dns_problems(self) -> Iterator[Problem]:
        for index, host in enumerate(self.hosts if not self.endpoints else ()):
            if names.is_wildcard(host):
                message = f"is {host}; resolution {self.resolution} without endpoints looks the hosts up"
                yield Problem(("hosts", index), message)
        if self.resolution is Resolution.DNS_ROUND_ROBIN and len(self.endpoints) > 1:
            yield Problem(("endpoints",), "must have at most one item with resolution DNS_ROUND_ROBIN")
        for index, endpoint in enumerate(self.endpoints):
            yield from self._endpoint_problems(index, endpoint)

    def _dynamic_problems(self) -> Iterator[Problem]:
        for index, host in enumerate(self.hosts):
            if not names.is_wildcard(host):
                yield Problem(("hosts", index), f"is {host}; resolution DYNAMIC_DNS needs a wildcard")
        for field in ("addresses", "endpoints"):
            if getattr(self, field):
                yield Problem((field,), "must not be given with resolution DYNAMIC_DNS")
        for index, port in enumerate(self.ports):
            if port.protocol.lower() not in ("http", "http2", "grpc", "tls"):
                message = "must be HTTP, HTTP2, GRPC or TLS with resolution DYNAMIC_DNS"
                yield Problem(("ports", index, "protocol"), message)
            elif port.protocol.lower() == "tls":
                message = "is TLS, which with DYNAMIC_DNS is not supported by this version; name the hosts"
                yield Problem(("ports", index, "protocol"), message, Code.UNSUPPORTED_FIELD)
