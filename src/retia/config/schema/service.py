"""Kubernetes ``Service``: a name with ports, whose endpoints are the workloads that its selector selects."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated

from pydantic import Field, Strict

from retia.config import names
from retia.config.codes import Code
from retia.config.schema import protocol
from retia.config.schema.base import Model, Problem
from retia.config.schema.types import Flag, HostName, Int, LabelMap, Network, Port, Text, duplicates
from retia.model.mesh import Protocol


class ServiceType(StrEnum):
    CLUSTER_IP = "ClusterIP"
    NODE_PORT = "NodePort"
    LOAD_BALANCER = "LoadBalancer"
    EXTERNAL_NAME = "ExternalName"


class Transport(StrEnum):
    TCP = "TCP"
    UDP = "UDP"
    SCTP = "SCTP"


class ServicePort(Model):
    name: Text = ""
    """Its start up to ``-`` declares the protocol, as in ``http-web``."""
    port: Port
    target_port: Annotated[int, Strict(), Field(ge=1, le=65535)] | Text | None = None
    """The application's port: a number, or the name of one. Absent: ``port``."""
    protocol: Transport = Transport.TCP
    app_protocol: Text | None = None
    """Outweighs the name."""
    node_port: Int | None = None

    def problems(self) -> Iterator[Problem]:
        if self.name and not names.is_object_label(self.name):
            yield Problem(
                ("name",), f"is {self.name!r}; it must be a DNS label in lower case", Code.BAD_VALUE
            )
        if self.node_port is not None and not 0 <= self.node_port <= 65535:
            yield Problem(("nodePort",), f"is {self.node_port}; it must be 1 to 65535", Code.BAD_VALUE)
        if isinstance(self.target_port, str) and not names.is_object_label(self.target_port):
            message = f"is {self.target_port!r}; it must be a port or the name of one"
            yield Problem(("targetPort",), message, Code.BAD_VALUE)

    @property
    def speaks(self) -> Protocol | None:
        """``None``: UDP or SCTP, which are not carried."""
        return protocol.of_service_port(self.port, self.name, self.protocol, self.app_protocol)

    @property
    def app_port(self) -> int:
        """The number that the application listens on; a named ``targetPort`` counts as absent."""
        return self.target_port if isinstance(self.target_port, int) else self.port


class ClientIPConfig(Model):
    timeout_seconds: Int | None = None


class SessionAffinityConfig(Model):
    client_ip: Annotated[ClientIPConfig | None, Field(alias="clientIP")] = None


class Service(Model):
    ports: tuple[ServicePort, ...] = ()
    selector: LabelMap = ()
    cluster_ip: Annotated[Text, Field(alias="clusterIP")] = ""
    """``None`` (the text): headless. Empty: allocated."""
    cluster_ips: Annotated[tuple[Text, ...], Field(alias="clusterIPs")] = ()
    type: ServiceType = ServiceType.CLUSTER_IP
    external_name: HostName | None = None
    external_ips: Annotated[tuple[Network, ...], Field(alias="externalIPs")] = ()
    session_affinity: Text = ""
    session_affinity_config: SessionAffinityConfig | None = None
    publish_not_ready_addresses: Flag = False
    internal_traffic_policy: Text = ""
    external_traffic_policy: Text = ""
    health_check_node_port: Int = 0
    ip_families: tuple[Text, ...] = ()
    ip_family_policy: Text = ""
    load_balancer_ip: Annotated[Text, Field(alias="loadBalancerIP")] = ""
    load_balancer_class: Text = ""
    load_balancer_source_ranges: tuple[Network, ...] = ()
    allocate_load_balancer_node_ports: Flag | None = None
    traffic_distribution: Text = ""

    def problems(self) -> Iterator[Problem]:
        yield from self._port_problems()
        if self.type is ServiceType.EXTERNAL_NAME and not self.external_name:
            yield Problem(("externalName",), "is missing; type ExternalName needs it", Code.MISSING_FIELD)
        if self.type is not ServiceType.EXTERNAL_NAME and not self.ports and not self.is_headless:
            yield Problem(("ports",), "must have at least one port", Code.MISSING_FIELD)
        if self.cluster_ip not in ("", "None") and not names.is_ip(self.cluster_ip):
            message = f"is {self.cluster_ip!r}; it must be an IP address or None"
            yield Problem(("clusterIP",), message, Code.BAD_VALUE)

    def _port_problems(self) -> Iterator[Problem]:
        for index, pair in duplicates((port.protocol, port.port) for port in self.ports):
            yield Problem(("ports", index, "port"), f"is {pair[1]}/{pair[0]}, which is there already")
        for index, name in duplicates(port.name for port in self.ports):
            if name:
                yield Problem(("ports", index, "name"), f"is {name}, which is there already")
        for index, port in enumerate(self.ports):
            if not port.name and len(self.ports) > 1:
                yield Problem(
                    ("ports", index, "name"), "is missing; several ports need names", Code.MISSING_FIELD
                )

    @property
    def is_headless(self) -> bool:
        """No virtual address: clients look up and dial endpoints."""
        return self.cluster_ip == "None"
