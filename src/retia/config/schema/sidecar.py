"""``Sidecar``: what one workload's proxy, or those of a namespace, see of the mesh. networking.istio.io."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum

from retia.config import names
from retia.config.codes import Code
from retia.config.schema import protocol
from retia.config.schema.base import Model, Path, Problem
from retia.config.schema.gateway import ServerTLSSettings
from retia.config.schema.selector import EntrySelector
from retia.config.schema.traffic_policy import ConnectionPoolSettings
from retia.config.schema.types import HostName, Port, PortSelector, Text, duplicates
from retia.model.mesh import Protocol

NAMESPACES = ("*", ".", "~")


class CaptureMode(StrEnum):
    DEFAULT = "DEFAULT"
    IPTABLES = "IPTABLES"
    NONE = "NONE"


class SidecarPort(Model):
    number: Port
    protocol: Text = ""
    """As of a ServiceEntry's port. Empty: as the workload or the service says."""
    name: Text = ""
    target_port: Port | None = None

    def problems(self) -> Iterator[Problem]:
        if self.protocol and not protocol.is_known(self.protocol):
            message = f"is {self.protocol}; it must be one of {', '.join(protocol.KNOWN).upper()}"
            yield Problem(("protocol",), message, Code.BAD_VALUE)

    @property
    def speaks(self) -> Protocol | None:
        """``None``: UDP."""
        return protocol.of_name(self.protocol)


class EgressPort(SidecarPort):
    """A port at which hosts are seen; only its number counts."""


class OutboundMode(StrEnum):
    REGISTRY_ONLY = "REGISTRY_ONLY"
    ALLOW_ANY = "ALLOW_ANY"


class EgressProxy(Model):
    """A service that takes what goes to unknown destinations."""

    host: HostName
    subset: Text = ""
    port: PortSelector | None = None

    def problems(self) -> Iterator[Problem]:
        if self.port is None:
            yield Problem(("port",), "is missing", Code.MISSING_FIELD)


class OutboundTrafficPolicy(Model):
    mode: OutboundMode = OutboundMode.REGISTRY_ONLY
    egress_proxy: EgressProxy | None = None


class IngressListener(Model):
    """One port of the workload."""

    port: SidecarPort
    bind: Text = ""
    capture_mode: CaptureMode = CaptureMode.DEFAULT
    default_endpoint: Text = ""
    """Where the program listens: ``127.0.0.1:PORT``, ``0.0.0.0:PORT`` or ``unix:///PATH``. Empty: its own
    port."""
    tls: ServerTLSSettings | None = None
    connection_pool: ConnectionPoolSettings | None = None

    def problems(self) -> Iterator[Problem]:
        if self.default_endpoint and not self.default_endpoint.startswith("unix://"):
            address, _, port = self.default_endpoint.rpartition(":")
            if address not in ("127.0.0.1", "0.0.0.0", "[::1]", "[::]") or not _is_port(port):
                message = (
                    f"is {self.default_endpoint}; it must be 127.0.0.1:PORT, 0.0.0.0:PORT or unix:///PATH"
                )
                yield Problem(("defaultEndpoint",), message, Code.BAD_VALUE)


class EgressListener(Model):
    """Hosts that are seen, at one port or at all."""

    port: EgressPort | None = None
    bind: Text = ""
    capture_mode: CaptureMode = CaptureMode.DEFAULT
    hosts: tuple[Text, ...] = ()
    """``NAMESPACE/HOST``: a namespace, ``*``, ``.`` (own) or ``~`` (none); a host, ``*.DOMAIN`` or ``*``."""

    def problems(self) -> Iterator[Problem]:
        if not self.hosts:
            yield Problem(("hosts",), "must have at least one host", Code.MISSING_FIELD)
        for index, host in enumerate(self.hosts):
            broken = _host_rule(host)
            if broken:
                yield Problem(("hosts", index), f"is {host!r}; it {broken}", Code.BAD_VALUE)
        for index, host in duplicates(self.hosts):
            yield Problem(("hosts", index), f"is {host}, which is there already")


class Sidecar(Model):
    workload_selector: EntrySelector | None = None
    """Absent: all workloads of the namespace."""
    ingress: tuple[IngressListener, ...] = ()
    egress: tuple[EgressListener, ...] = ()
    """Absent: everything is seen."""
    outbound_traffic_policy: OutboundTrafficPolicy | None = None
    inbound_connection_pool: ConnectionPoolSettings | None = None

    def problems(self) -> Iterator[Problem]:
        for index, number in duplicates(each.port.number for each in self.ingress):
            path: Path = ("ingress", index, "port", "number")
            yield Problem(path, f"is {number}, which is there already")
        rest = [index for index, each in enumerate(self.egress) if each.port is None]
        if rest and rest[0] != len(self.egress) - 1:
            yield Problem(("egress", rest[0], "port"), "is missing; only the last item may have none")


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and 0 < int(text) < 65536


def _host_rule(text: str) -> str | None:
    namespace, slash, host = text.partition("/")
    if not slash:
        return "must be NAMESPACE/HOST, such as ./* or */*"
    if namespace not in NAMESPACES and not names.is_object_label(namespace):
        return "must begin with a namespace, *, . or ~"
    return None if host == "*" else names.host_rule(host, wildcard=True)
