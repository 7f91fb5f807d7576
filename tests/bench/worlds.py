"""Synthetic meshes of a stated size, for the benchmarks that need no real workloads."""

from __future__ import annotations

from retia.model.ids import Host, HostId, Namespace, ProxyId, WorkloadId
from retia.model.mesh import (
    MeshSettings,
    Protocol,
    Proxy,
    ProxyKind,
    Workload,
    WorkloadPort,
    labels_of,
)
from retia.model.snapshot import Snapshot
from retia.policy.facts import FactBase
from retia.translate import translate
from retia.xds.cache import Engine

PORT = 9080
DEFAULT = Namespace("default")


def workload(service: int, instance: int, number: int) -> Workload:
    """Instance ``number`` of the mesh: one of a service's."""
    return Workload(
        WorkloadId(f"default/s{service}-{instance}"),
        DEFAULT,
        f"s{service}",
        HostId(f"h{number % 100}"),
        f"s{service}",
        (WorkloadPort(PORT, PORT, Protocol.HTTP),),
        labels_of({"app": f"s{service}", "version": f"v{instance % 2 + 1}"}),
        published_address=f"127.64.{number >> 8 & 255}.{number & 255}",
        app_address=f"127.65.{number >> 8 & 255}.{number & 255}",
    )


def service_host(service: int) -> Host:
    return Host(f"s{service}.default.svc.cluster.local")


def client(number: int = 0) -> Proxy:
    """The sidecar of a workload that only calls."""
    return Proxy(
        ProxyId(f"default/client-{number}"),
        ProxyKind.SIDECAR,
        DEFAULT,
        "client",
        HostId("h0"),
        WorkloadId(f"default/client-{number}"),
        outbound_address="127.65.255.1",
        outbound_http_port=15001,
        outbound_auto_port=15002,
        outbound_tcp_port=15003,
    )


class Mesh:
    """A fact base, its newest snapshot and an engine over it."""

    def __init__(self, services: int, endpoints_each: int) -> None:
        self.facts = FactBase(MeshSettings())
        self.facts.put_workloads(
            workload(s, i, s * endpoints_each + i) for s in range(services) for i in range(endpoints_each)
        )
        hosts = self.facts.hosts_without_vip()
        self.facts.put_vips({h: f"240.240.{n >> 8}.{n & 255}" for n, h in enumerate(hosts, 1)})
        self.snapshot, _ = Snapshot().with_changes(self.facts.take_changes())
        self.engine = Engine(self.snapshot, translate.build, translate.listed)
