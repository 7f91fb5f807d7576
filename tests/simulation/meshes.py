"""A case's mesh as facts: workloads, services, objects, and the proxies that see them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import yaml

from retia.config import kinds
from retia.config.parse import SourceText, namespace_of, parse
from retia.model.finding import Finding
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
from retia.model.objects import ConfigObject, ObjectRef
from retia.model.snapshot import Snapshot
from retia.policy.facts import FactBase
from tests.simulation.case import Case, GatewayProxy, Member
from tests.simulation.keys import keys
from tests.support.world import Mesh, sidecar

NOWHERE = "240.240.255.254"
"""The address of names that nobody has."""
DOCUMENTATION = {"192.0.2.": 2, "198.51.100.": 3}
"""Addresses that cases use for servers outside, and the third number of what replaces them in real runs."""


_VIPS: dict[Host, int] = {}


@dataclass(frozen=True)
class Net:
    """Which addresses a run uses."""

    published: str = "127.64.0"
    apps: str = "127.65.0"
    gateways: str = "127.66.0"
    outside: str = ""
    """``127.n``: replaces the networks of :data:`DOCUMENTATION`; empty: they stay."""

    def put(self, text: str) -> str:
        if self.outside:
            for network, number in DOCUMENTATION.items():
                text = text.replace(network, f"{self.outside}.{number}.")
        return text


class Simulated:
    """The facts of one case, in one net."""

    def __init__(self, case: Case, net: Net = Net()) -> None:
        self.case = case
        self.net = net
        self.settings = _settings(case.settings)
        self.workloads: dict[str, Workload] = {}
        """By ``name.namespace/version``."""
        self.labels: dict[str, str] = {}
        """From address (``ip`` of a workload, ``ip:port`` or ``host:port`` of a server outside) to label."""
        self.objects, self.findings = _objects(keys().put(net.put(case.config)))
        for member in case.members:
            self._add(member)
        for each in case.outside:
            address = net.put(each.address)
            self.labels[address] = each.name
            if each.host:
                self.labels[f"{each.host}:{address.rpartition(':')[2]}"] = each.name
        base = FactBase(self.settings)
        base.put_workloads(self.workloads.values())
        base.put_objects(self.objects)
        for obj in self.objects:
            if obj.ref.kind == "EnvoyFilter":
                base.put_patch(obj.ref, obj)
        for name, weight in case.rollouts.items():
            base.put_rollout(ObjectRef("Rollout", Namespace("default"), name), weight)
        base.put_vips({host: _vip_of(host) for host in base.hosts_without_vip()})
        self.snapshot: Snapshot = Snapshot().with_changes(base.take_changes())[0]

    def _add(self, member: Member) -> None:
        for version in ("",) if member.client else member.versions:
            number = len(self.workloads) + 1
            gateway, _, gateway_port = self.net.put(member.gateway).partition(":")
            annotations = dict(member.annotations)
            if member.http_inbound:
                annotations["retia.dev/inbound"] = "http"
            workload = Workload(
                id=WorkloadId(f"{member.namespace}/{member.name}-{version or 'client'}-{number}"),
                namespace=namespace_of(member.namespace),
                service_account=member.account or ("default" if member.client else member.name),
                host=HostId(member.host),
                service="" if member.client else member.name,
                ports=() if member.client else _ports(member),
                labels=labels_of({"app": member.name, "version": version or "v1", **member.labels}),
                annotations=labels_of(annotations),
                published_address=f"{self.net.published}.{number}",
                app_address=f"{self.net.apps}.{number}",
                gateway_address=gateway,
                gateway_port=int(gateway_port or 0),
                locality=member.locality,
                healthy=member.healthy,
            )
            self.workloads[f"{member.name}.{member.namespace}/{version}"] = workload
            suffix = "" if member.namespace == "default" else f".{member.namespace}"
            self.labels[workload.published_address] = f"{member.name}{suffix}/{version}"

    # -- who --------------------------------------------------------------------------------------------

    def workload(self, name: str) -> Workload:
        """By ``name[.namespace][/version]``, the first of its versions; a stranger where there is none."""
        base, _, version = name.partition("/")
        short, _, namespace = base.partition(".")
        key = f"{short}.{namespace or 'default'}/"
        for full, workload in self.workloads.items():
            if full.startswith(key) and version in ("", full.partition("/")[2]):
                return workload
        assert not version, f"the mesh has no {name}"
        return Workload(
            id=WorkloadId(f"{namespace or 'default'}/{short or 'client'}"),
            namespace=namespace_of(namespace or "default"),
            service_account="default",
            host=HostId("here"),
            app_address=f"{self.net.apps}.254",
        )

    def sidecar(self, name: str, **changes: Any) -> Mesh:
        workload = self.workload(name)
        proxy = replace(sidecar(workload), locality=workload.locality)
        return Mesh(self.snapshot, replace(proxy, **changes))

    def gateway(self, name: str, **changes: Any) -> Mesh:
        found = next((g for g in self.case.gateways if g.name == name), GatewayProxy(name))
        namespace = namespace_of(found.namespace)
        proxy = Proxy(
            id=ProxyId(f"{namespace}/{name}"),
            kind=ProxyKind.GATEWAY,
            namespace=Namespace(namespace),
            service_account=found.account,
            host=HostId("here"),
            labels=labels_of(found.labels),
            annotations=labels_of(found.annotations),
            edge_address=f"{self.net.gateways}.1",
        )
        return Mesh(self.snapshot, replace(proxy, **changes))

    def label_of(self, address: str) -> str:
        """Who is at ``ip:port`` (or ``host:port``), for expectations."""
        return self.labels.get(address) or self.labels.get(address.rpartition(":")[0]) or address


def _vip_of(host: Host) -> str:
    """The same for a host in all cases, as the store gives it."""
    number = _VIPS.setdefault(host, len(_VIPS) + 1)
    return f"240.240.{number // 250}.{number % 250 + 1}"


def _settings(given: Mapping[str, Any]) -> MeshSettings:
    return MeshSettings(**given)


def _ports(member: Member) -> tuple[WorkloadPort, ...]:
    if not member.ports:
        return (WorkloadPort(member.port, member.port, Protocol(member.protocol)),)
    return tuple(
        WorkloadPort(p["port"], p.get("app_port", p["port"]), Protocol(p.get("protocol", "http")))
        for p in member.ports
    )


def documents(config: str) -> list[dict[str, Any]]:
    """The documents of a case's configuration, each with an ``apiVersion``."""
    found = [d for d in yaml.safe_load_all(config) if d]
    for document in found:
        if "apiVersion" not in document:
            document["apiVersion"] = kinds.KINDS[document["kind"]].api_version
    return found


def _objects(config: str) -> tuple[list[ConfigObject], tuple[Finding, ...]]:
    """The objects in the order in which they are written, the oldest first, and what applying them says."""
    written = documents(config)
    if not written:
        return [], ()
    text = yaml.safe_dump_all(written, sort_keys=False)
    parsed = parse([SourceText("case", text)])
    order = {
        (d["kind"], d["metadata"]["name"], str(namespace_of(d["metadata"].get("namespace", "default")))): n
        for n, d in enumerate(written, 1)
    }
    objects = [
        replace(
            obj,
            created=order.get((obj.ref.kind.partition(".")[0], obj.ref.name, str(obj.ref.namespace)))
            or order.get((obj.ref.kind.partition(".")[0], obj.ref.name, "default"), 0),
        )
        for obj in parsed.objects
    ]
    return sorted(objects, key=lambda obj: obj.created), parsed.findings


def host_port(text: str, default: int = 80) -> tuple[str, int]:
    head, colon, port = text.rpartition(":")
    return (head, int(port)) if colon and port.isdigit() else (text, default)


def dialled(world: Simulated, mesh: Mesh, host: str, port: int) -> tuple[str, Protocol | None]:
    """The address that ``host`` resolves to for that proxy's program, and what the port is captured as.

    As the agent's names and the kernel's table do it; ``None``: not captured.
    """
    from retia.policy.registry import resolve_address, resolve_name, service

    if _is_address(host):
        found = resolve_address(mesh.view, host, port)
        address = host
    else:
        found = resolve_name(mesh.view, host.lower(), mesh.proxy.namespace, port)
        known = service(mesh.view, found.host) if found is not None else None
        named = next((world.net.put(o.address) for o in world.case.outside if o.host == host), NOWHERE)
        address = (known.vip if known is not None else "") or named.rpartition(":")[0] or NOWHERE
    if found is not None:
        known = service(mesh.view, Host(found.host))
        declared = known.port(found.port) if known is not None else None
        if declared is not None:
            return address, declared.protocol
    for index, protocol in (("http-ports", Protocol.HTTP), ("auto-ports", Protocol.AUTO)):
        if port in mesh.view.index(index, ""):
            return address, protocol
    return address, Protocol.TCP


def _is_address(text: str) -> bool:
    return text.replace(".", "").isdigit()
