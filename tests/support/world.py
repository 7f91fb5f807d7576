"""A small mesh for tests of policy and translation: say what matters, the rest is chosen.

    world = World().service("reviews", versions=("v1", "v2"))
    world.apply("kind: VirtualService ...")
    mesh = world.client("productpage")
    mesh.virtual_host("9080/reviews")

Addresses are handed out in order: the n-th instance is at 127.64.0.n (application: 127.65.0.n), the n-th
service of the sorted list of hosts at 240.240.0.n.
"""

from __future__ import annotations

import textwrap
from dataclasses import replace
from typing import Any

import yaml

from retia.config.kinds import KINDS, Kind, find
from retia.config.parse import namespace_of
from retia.model.ids import MESH_NAMESPACE, Host, HostId, Namespace, ProxyId, WorkloadId, service_host
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
from retia.model.resource import Built, Name, TypeUrl
from retia.model.snapshot import PlainView, Snapshot, View
from retia.policy.facts import FactBase
from retia.translate.translate import build, listed
from tests.support.validating import decode


class Mesh:
    """What one proxy is told."""

    def __init__(self, snapshot: Snapshot, proxy: Proxy) -> None:
        self.snapshot = snapshot
        self.proxy = proxy
        self.view: View = PlainView(snapshot, proxy)

    def built(self, type_url: TypeUrl, name: str) -> Built:
        return build(self.view, Name(type_url, name))

    def get(self, name: Name) -> Built:
        return build(self.view, name)

    def exists(self, type_url: TypeUrl, name: str) -> bool:
        return self.built(type_url, name).message is not None

    def listener(self, name: str) -> Any:
        return decode(TypeUrl.LISTENER, self.built(TypeUrl.LISTENER, name))

    def route_config(self, name: str) -> Any:
        return decode(TypeUrl.ROUTE, self.built(TypeUrl.ROUTE, name))

    def virtual_host(self, name: str) -> Any:
        return decode(TypeUrl.VIRTUAL_HOST, self.built(TypeUrl.VIRTUAL_HOST, name))

    def cluster(self, name: str) -> Any:
        return decode(TypeUrl.CLUSTER, self.built(TypeUrl.CLUSTER, name))

    def addresses(self, name: str) -> list[str]:
        """The endpoints of that name as ``ip:port``, in order."""
        assignment = decode(TypeUrl.ENDPOINTS, self.built(TypeUrl.ENDPOINTS, name))
        return [
            f"{e.endpoint.address.socket_address.address}:{e.endpoint.address.socket_address.port_value}"
            for group in assignment.endpoints
            for e in group.lb_endpoints
        ]

    def listed(self, type_url: TypeUrl) -> tuple[str, ...]:
        return listed(self.view, type_url)

    def roots(self, *requests: str) -> list[Name]:
        """All listeners and inbound clusters, and the virtual hosts of ``requests``."""
        names = [Name(TypeUrl.LISTENER, n) for n in self.listed(TypeUrl.LISTENER)]
        names += [Name(TypeUrl.CLUSTER, n) for n in self.listed(TypeUrl.CLUSTER)]
        return names + [Name(TypeUrl.VIRTUAL_HOST, n) for n in requests]

    def reachable(self, *requests: str) -> list[tuple[Name, Built]]:
        """The roots and all that they refer to, built."""
        found: dict[Name, Built] = {}
        queue = self.roots(*requests)
        while queue:
            name = queue.pop()
            if name not in found:
                found[name] = self.get(name)
                queue += found[name].refs
        return sorted(found.items(), key=lambda item: (item[0].type, item[0].name))


class World:
    """Workloads and objects; :meth:`client` looks at them with one proxy's eyes."""

    def __init__(self, **settings: Any) -> None:
        self.settings = MeshSettings(**settings)
        self.workloads: list[Workload] = []
        self.texts: list[str] = []
        self.weights: dict[str, int] = {}

    def service(
        self,
        name: str,
        port: int = 9080,
        protocol: str = "http",
        *,
        versions: tuple[str, ...] = ("v1",),
        namespace: str = "default",
        account: str = "",
        host: str = "here",
        gateway: str = "",
        http_inbound: bool = False,
        **labels: str,
    ) -> World:
        """A service with one instance of each version. ``gateway`` (``ip:port``): its host has one."""
        for version in versions:
            number = len(self.workloads) + 1
            address, _, gateway_port = gateway.partition(":")
            self.workloads.append(
                Workload(
                    id=WorkloadId(f"{namespace}/{name}-{version}-{number}"),
                    namespace=Namespace(namespace),
                    service_account=account or name,
                    host=HostId(host),
                    service=name,
                    ports=(WorkloadPort(port, port, Protocol(protocol)),),
                    labels=labels_of({"app": name, "version": version, **labels}),
                    annotations=labels_of({"retia.dev/inbound": "http"} if http_inbound else {}),
                    published_address=f"127.64.0.{number}",
                    app_address=f"127.65.0.{number}",
                    gateway_address=address,
                    gateway_port=int(gateway_port or 0),
                )
            )
        return self

    def apply(self, text: str) -> World:
        """Configuration objects as YAML, ``apiVersion`` left out."""
        self.texts.append(textwrap.dedent(text))
        return self

    def rollout(self, name: str, weight: int | None) -> World:
        """The canary's share of requests, as the controller has come to it."""
        if weight is not None:
            self.weights[name] = weight
        return self

    def snapshot(self) -> Snapshot:
        base = FactBase(self.settings)
        base.put_workloads(self.workloads)
        base.put_objects(self.objects())
        for obj in self.objects():
            if obj.ref.kind == "EnvoyFilter":
                base.put_patch(obj.ref, obj)
        for name, weight in self.weights.items():
            base.put_rollout(ObjectRef("Rollout", Namespace("default"), name), weight)
        base.put_vips({host: f"240.240.0.{n}" for n, host in enumerate(base.hosts_without_vip(), 1)})
        return Snapshot().with_changes(base.take_changes())[0]

    def objects(self) -> list[ConfigObject]:
        """The objects in the order in which they were given, the oldest first.

        The models are used directly, so that what ``apply`` still refuses can be tested as well.
        """
        documents = [d for text in self.texts for d in yaml.safe_load_all(text)]
        return [_object(document, number) for number, document in enumerate(documents, 1)]

    def client(self, name: str = "", namespace: str = "default", **changes: Any) -> Mesh:
        """The view of the first instance of a service, or of a client that is no service."""
        for workload in self.workloads:
            if workload.service == name and workload.namespace == namespace:
                return Mesh(self.snapshot(), replace(sidecar(workload), **changes))
        stranger = Workload(
            id=WorkloadId(f"{namespace}/{name or 'client'}"),
            namespace=Namespace(namespace),
            service_account="default",
            host=HostId("here"),
            app_address="127.65.1.1",
        )
        return Mesh(self.snapshot(), replace(sidecar(stranger), **changes))

    def gateway(self, host: str = "here") -> Mesh:
        """The view of a host's gateway."""
        proxy = Proxy(
            id=ProxyId(f"host/{host}"),
            kind=ProxyKind.HOST_GATEWAY,
            namespace=MESH_NAMESPACE,
            service_account="gateway",
            host=HostId(host),
            gateway_address="127.0.0.1",
            gateway_port=15443,
        )
        return Mesh(self.snapshot(), proxy)

    def edge(self, namespace: str = "default", **changes: Any) -> Mesh:
        """The view of an ingress gateway; ``labels`` are a mapping."""
        labels = changes.pop("labels", {"istio": "ingressgateway"})
        proxy = Proxy(
            id=ProxyId(f"{namespace}/ingress-1"),
            kind=ProxyKind.GATEWAY,
            namespace=namespace_of(namespace),
            service_account="ingress",
            host=HostId("here"),
            labels=labels_of(labels),
            outbound_address="127.64.1.1",
            edge_address="0.0.0.0",
        )
        return Mesh(self.snapshot(), replace(proxy, **changes))


def sidecar(workload: Workload) -> Proxy:
    """The Envoy of a workload under capture."""
    return Proxy(
        id=ProxyId(workload.id),
        kind=ProxyKind.SIDECAR,
        namespace=workload.namespace,
        service_account=workload.service_account,
        host=workload.host,
        workload=workload.id,
        labels=workload.labels,
        annotations=workload.annotations,
        outbound_address=workload.app_address,
        outbound_http_port=15001,
        outbound_auto_port=15002,
        outbound_tcp_port=15003,
        inbound_address=workload.published_address,
        app_address=workload.app_address,
        ports=workload.ports,
    )


def fqdn(name: str, namespace: str = "default") -> Host:
    return service_host(name, namespace)


def outbound(name: str, port: int = 9080, subset: str = "", namespace: str = "default") -> str:
    """The name of a service's cluster."""
    return f"outbound|{port}|{subset}|{fqdn(name, namespace)}"


def _kind(document: dict[str, Any]) -> Kind:
    """The kind of a document, which need not say its ``apiVersion`` where one kind only has the name."""
    group, _, _ = document.get("apiVersion", "").rpartition("/")
    found = find(group, document["kind"]) if "apiVersion" in document else KINDS.get(document["kind"])
    assert found is not None, f"no such kind: {document['kind']}"
    return found


def _content(document: dict[str, Any], kind: Kind) -> Any:
    if kind.roots == ("spec",):
        return document.get("spec") or {}
    return {root: document[root] for root in kind.roots if root in document}


def _object(document: dict[str, Any], created: int) -> ConfigObject:
    kind, metadata = _kind(document), document["metadata"]
    inside = metadata.get("namespace", "default")
    namespace = namespace_of(inside) if kind.namespaced else Namespace("")
    return ConfigObject(
        ref=ObjectRef(kind.name, namespace, metadata["name"]),
        spec=kind.model.model_validate(_content(document, kind)),
        created=created,
    )
