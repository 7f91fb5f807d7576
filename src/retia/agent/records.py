"""A workload of this host as it is written down, and as the controller is told of it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Literal

from pydantic import BaseModel, ConfigDict

from retia._generated import agent_pb2 as pb
from retia.agent.rpc import Message
from retia.api.local import HealthCheck, PortSpec, UpstreamSpec, WorkloadInfo, WorkloadState
from retia.model import annotation
from retia.model.mesh import INBOUND_PORT, ProxyKind
from retia.model.resource import Resource
from retia.node.addresses import (
    EXPLICIT_PORT,
    OUTBOUND_AUTO_PORT,
    OUTBOUND_HTTP_PORT,
    OUTBOUND_TCP_PORT,
)

LOOPBACK = "127.0.0.1"
ANY_ADDRESS = "0.0.0.0"


class Record(BaseModel):
    """What must survive the worker. Written as JSON; unknown fields of a later version are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    id: str
    namespace: str
    number: int
    """The instance's number on this host, from 1: its addresses follow from it."""
    service: str = ""
    service_account: str = "default"
    pid: int = 0
    stamp: int = 0
    """The process's start time, so that a reused id is not taken for it."""
    uid: int = 0
    gid: int = 0
    capture: Literal["ebpf", "explicit"] = "explicit"
    reason: str = ""
    ports: tuple[PortSpec, ...] = ()
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    locality: str = ""
    upstreams: tuple[UpstreamSpec, ...] = ()
    health: HealthCheck | None = None
    command: tuple[str, ...] = ()
    cwd: str = ""
    started: float = 0.0
    published_address: str = ""
    app_address: str = ""

    @property
    def gateway(self) -> str:
        """The gateway that it is, by its name; empty: a program with a sidecar."""
        return self.annotations.get(annotation.GATEWAY, "")

    @property
    def kind(self) -> ProxyKind:
        """Of its proxy."""
        return ProxyKind.GATEWAY if self.gateway else ProxyKind.SIDECAR


@dataclass(slots=True)
class Instance:
    """A workload while it lives."""

    record: Record
    state: WorkloadState = "starting"
    listening: set[int] = field(default_factory=set)
    """Port numbers (callers') on which the program has been seen listening."""
    passing: bool = True
    """What the health checks say; true where there are none."""
    health: str = ""
    known: bool = False
    """The controller is told of it from now on."""
    since: float = field(default_factory=time.monotonic)

    @property
    def id(self) -> str:
        return self.record.id

    @property
    def healthy(self) -> bool:
        return self.passing and self.state in ("running", "unhealthy")

    @property
    def listen_address(self) -> str:
        """Where the program really listens; a gateway's is its proxy."""
        if self.record.gateway:
            bind = self.record.annotations.get(annotation.GATEWAY_BIND, ANY_ADDRESS)
            return LOOPBACK if bind == ANY_ADDRESS else bind
        return self.record.app_address if self.record.capture == "ebpf" else LOOPBACK

    def message(self, gateway: tuple[str, int] | None) -> Message:
        """As ``retia.agent.v1.Workload``."""
        record = self.record
        message = pb.Workload(
            id=record.id,
            namespace=record.namespace,
            service_account=record.service_account,
            service=record.service,
            labels=record.labels,
            annotations=record.annotations,
            published_address=record.published_address,
            app_address=self.listen_address,
            capture=record.capture,
            healthy=self.healthy,
            locality=record.locality,
        )
        if gateway is not None:
            message.gateway_address, message.gateway_port = gateway
        for port in record.ports:
            message.ports.add(
                number=port.number,
                app_port=port.app_port or port.number,
                protocol=port.protocol,
                listening=port.number in self.listening,
            )
        return message

    def info(self, proxy: str, certificate_expiry: float, registered: bool) -> WorkloadInfo:
        """As the local socket shows it."""
        record = self.record
        return WorkloadInfo(
            id=record.id,
            namespace=record.namespace,
            service=record.service,
            service_account=record.service_account,
            state=self.state,
            pid=record.pid,
            capture=record.capture,
            reason=record.reason,
            ports=record.ports,
            listening=tuple(sorted(self.listening)),
            healthy=self.healthy,
            health=self.health,
            published_address=record.published_address,
            app_address=self.listen_address,
            labels=record.labels,
            proxy=proxy,
            started=record.started,
            command=record.command,
            upstreams=record.upstreams,
            explicit_port=EXPLICIT_PORT if record.capture == "explicit" else 0,
            certificate_expiry=certificate_expiry,
            registered=registered,
        )


def sidecar_message(record: Record, held: list[Resource]) -> Message:
    """A workload's proxy as ``retia.agent.v1.Proxy``. Its outbound listeners are at the app address."""
    if record.gateway:
        return _edge_message(record, held)
    message = pb.Proxy(
        id=record.id,
        kind=ProxyKind.SIDECAR,
        workload=record.id,
        outbound_address=record.app_address,
        inbound_port=INBOUND_PORT,
    )
    if record.capture == "ebpf":
        message.outbound_http_port = OUTBOUND_HTTP_PORT
        message.outbound_auto_port = OUTBOUND_AUTO_PORT
        message.outbound_tcp_port = OUTBOUND_TCP_PORT
    else:
        message.explicit_port = EXPLICIT_PORT
    for upstream in record.upstreams:
        message.upstreams.add(local_port=upstream.local_port, host=upstream.host, port=upstream.port)
    add_held(message, held)
    return message


def _edge_message(record: Record, held: list[Resource]) -> Message:
    """A gateway, whose only address of its own is the one on which it tells that it works."""
    message = pb.Proxy(
        id=record.id,
        kind=ProxyKind.GATEWAY,
        workload=record.id,
        outbound_address=record.published_address,
    )
    add_held(message, held)
    return message


def gateway_message(proxy: str, address: str, port: int, held: list[Resource]) -> Message:
    """The host gateway as ``retia.agent.v1.Proxy``."""
    message = pb.Proxy(id=proxy, kind=ProxyKind.HOST_GATEWAY, outbound_address=address, inbound_port=port)
    add_held(message, held)
    return message


def add_held(message: Message, held: list[Resource]) -> None:
    for resource in held:
        message.held.add(type_url=resource.type, name=resource.name, version=resource.version)
