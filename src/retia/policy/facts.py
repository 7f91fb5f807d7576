"""From what sources say to the facts and indexes that translation reads.

Sources give configuration objects and workloads; translation wants services, endpoint sets and the answers to
questions such as "which virtual services name this host". :class:`FactBase` keeps the former and derives the
latter, again only for the hosts that a change touches: a workload that starts costs one endpoint set, not a
pass over the mesh.

A service comes from a Kubernetes ``Service``, a ``ServiceEntry``, or from workloads that name it, in this
order; ``Service`` and ``ServiceEntry`` for one host: the older object wins. An endpoint is a fact only while
its application listens and is healthy.

Index entries made here: ``vip`` and ``address`` (who has this address), ``http-ports`` and ``auto-ports``
(port numbers of all services), ``se-wildcard`` (wildcard hosts), ``services`` (all hosts, for what is sent
ahead of use); those of configuration objects are listed in :mod:`retia.policy.indexes`.
"""

from __future__ import annotations

import ipaddress
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from retia.model import annotation
from retia.model.ids import Host, Namespace, SpiffeId, WorkloadId, service_host
from retia.model.mesh import (
    INBOUND_PORT,
    Endpoint,
    EndpointSet,
    Labels,
    MeshSettings,
    Protocol,
    Resolution,
    Service,
    ServicePort,
    Wire,
    Workload,
    WorkloadPort,
    labels_match,
    labels_of,
)
from retia.model.objects import ConfigObject, ObjectRef
from retia.model.snapshot import FactKey
from retia.policy.indexes import FLAGS, Entry, entries

_RESOLUTIONS = {"NONE": Resolution.PASSTHROUGH, "STATIC": Resolution.STATIC}
"""Others are some kind of DNS."""


class FactBase:
    """The mutable edge of the pure part: fill it with ``put_*``, then :meth:`take_changes`."""

    def __init__(self, settings: MeshSettings) -> None:
        self._settings = settings
        self._objects: dict[ObjectRef, ConfigObject] = {}
        self._workloads: dict[WorkloadId, Workload] = {}
        self._vips: dict[Host, str] = {}
        self._changes: dict[FactKey, Any] = {("mesh",): settings}
        self._services: dict[Host, Service] = {}
        self._endpoints: dict[Host, tuple[Endpoint, ...]] = {}
        self._declared: dict[Host, list[ObjectRef]] = defaultdict(list)
        self._members: dict[Host, set[WorkloadId]] = defaultdict(set)
        self._selecting: dict[Namespace, dict[ObjectRef, tuple[Labels, tuple[Host, ...]]]] = defaultdict(dict)
        self._entries: dict[Namespace, set[ObjectRef]] = defaultdict(set)
        self._indexed: dict[Entry, set[ObjectRef]] = defaultdict(set)
        self._found_by: dict[ObjectRef, frozenset[Entry]] = {}
        self._addresses: dict[str, Counter[tuple[Host, int]]] = defaultdict(Counter)
        self._ports: dict[str, Counter[int]] = {"http-ports": Counter(), "auto-ports": Counter()}
        self._wildcards: set[Host] = set()
        self._stale: set[Host] = set()

    # -- what sources say ----------------------------------------------------------------------------------

    def put_settings(self, settings: MeshSettings) -> None:
        if settings == self._settings:
            return
        self._settings = settings
        self._changes[("mesh",)] = settings
        self._stale.update(self._services)

    def put_objects(self, objects: Iterable[ConfigObject], removed: Iterable[ObjectRef] = ()) -> None:
        """Add, replace and remove configuration objects."""
        for ref in removed:
            self._replace(ref, None)
        for obj in objects:
            self._replace(obj.ref, obj)

    def put_workloads(self, workloads: Iterable[Workload], removed: Iterable[WorkloadId] = ()) -> None:
        """Add, replace and remove running instances."""
        for workload_id in removed:
            self._replace_workload(workload_id, None)
        for workload in workloads:
            self._replace_workload(workload.id, workload)

    def put_vips(self, vips: Mapping[Host, str]) -> None:
        """The virtual addresses of hosts, as the store allocated them."""
        for host, vip in vips.items():
            if self._vips.get(host) != vip:
                self._vips[host] = vip
                self._stale.add(host)

    def put_quarantine(self, version: str, error: str | None) -> None:
        """Withhold resources of that content (``None``: no longer)."""
        self._changes[("quarantine", version)] = error

    # -- what translation reads ----------------------------------------------------------------------------

    @property
    def services(self) -> Mapping[Host, Service]:
        return self._services

    @property
    def workloads(self) -> Mapping[WorkloadId, Workload]:
        return self._workloads

    @property
    def objects(self) -> Mapping[ObjectRef, ConfigObject]:
        return self._objects

    def endpoints(self, host: Host) -> tuple[Endpoint, ...]:
        return self._endpoints.get(host, ())

    def hosts_without_vip(self) -> tuple[Host, ...]:
        """Hosts that need an address from the store before their names can resolve."""
        self._derive()
        return tuple(sorted(h for h, s in self._services.items() if not s.vip and not h.startswith("*")))

    def take_changes(self) -> dict[FactKey, Any]:
        """The facts that differ since the last call; ``None`` for one that is gone."""
        self._derive()
        changes, self._changes = self._changes, {}
        return changes

    # -- objects -------------------------------------------------------------------------------------------

    def _replace(self, ref: ObjectRef, new: ConfigObject | None) -> None:
        old = self._objects.get(ref)
        if old is None and new is None:
            return
        if old is not None:
            self._unlink(old)
            del self._objects[ref]
        if new is not None:
            self._objects[ref] = new
            self._link(new)
        self._reindex(ref, entries(new, self._settings) if new is not None else frozenset())
        self._changes[("config", ref.kind, ref.namespace, ref.name)] = new

    def _link(self, obj: ConfigObject) -> None:
        ref = obj.ref
        if ref.kind in ("Service", "ServiceEntry"):
            self._link_service(obj)
        elif ref.kind == "WorkloadEntry":
            self._entries[ref.namespace].add(ref)
            self._stale_selectors(ref.namespace, labels_of(obj.spec.labels))

    def _unlink(self, obj: ConfigObject) -> None:
        ref = obj.ref
        if ref.kind in ("Service", "ServiceEntry"):
            for host in self._hosts_declared(obj):
                self._declared[host].remove(ref)
                self._stale.add(host)
            self._selecting[ref.namespace].pop(ref, None)
        elif ref.kind == "WorkloadEntry":
            self._entries[ref.namespace].discard(ref)
            self._stale_selectors(ref.namespace, labels_of(obj.spec.labels))

    def _link_service(self, obj: ConfigObject) -> None:
        hosts = self._hosts_declared(obj)
        for host in hosts:
            self._declared[host].append(obj.ref)
            self._stale.add(host)
        selector = _selector_of(obj)
        if selector:
            self._selecting[obj.ref.namespace][obj.ref] = (selector, hosts)

    def _hosts_declared(self, obj: ConfigObject) -> tuple[Host, ...]:
        if obj.ref.kind == "Service":
            return (service_host(obj.ref.name, obj.ref.namespace, self._settings.dns_suffix),)
        return tuple(Host(h.lower()) for h in obj.spec.hosts)

    def _stale_selectors(self, namespace: Namespace, labels: Labels) -> None:
        for selector, hosts in self._selecting[namespace].values():
            if labels_match(selector, labels):
                self._stale.update(hosts)

    # -- workloads -----------------------------------------------------------------------------------------

    def _replace_workload(self, workload_id: WorkloadId, new: Workload | None) -> None:
        old = self._workloads.get(workload_id)
        if old == new:
            return
        for workload in (old, new):
            if workload is not None:
                self._stale.update(self._hosts_of(workload))
                self._stale_selectors(workload.namespace, workload.labels)
        if old is not None:
            for host in self._hosts_of(old):
                self._members[host].discard(workload_id)
            del self._workloads[workload_id]
        if new is not None:
            self._workloads[workload_id] = new
            for host in self._hosts_of(new):
                self._members[host].add(workload_id)
        self._changes[("workload", workload_id)] = new

    def _hosts_of(self, workload: Workload) -> tuple[Host, ...]:
        if not workload.service:
            return ()
        return (service_host(workload.service, workload.namespace, self._settings.dns_suffix),)

    # -- deriving ------------------------------------------------------------------------------------------

    def _derive(self) -> None:
        if not self._stale:
            return
        stale, self._stale = self._stale, set()
        ports_before = {name: set(counter) for name, counter in self._ports.items()}
        addresses: set[str] = set()
        changed_names = False
        for host in sorted(stale):
            old, new = self._services.get(host), self._derive_service(host)
            if old != new:
                changed_names = changed_names or (old is None) != (new is None)
                self._put_service(host, old, new)
            addresses |= self._put_endpoints(host, self._derive_endpoints(new) if new else ())
        self._reindex_addresses(addresses)
        for name, before in ports_before.items():
            if set(self._ports[name]) != before:
                self._put_index(name, "", tuple(sorted(self._ports[name])))
        if changed_names:
            self._put_index("services", "", tuple(sorted(self._services)))

    def _derive_service(self, host: Host) -> Service | None:
        refs = sorted(self._declared.get(host, ()), key=lambda r: self._objects[r].order)
        if refs:
            obj = self._objects[refs[0]]
            make = _service_of if obj.ref.kind == "Service" else _external_of
            return make(obj, host, self._vips.get(host, ""))
        members = self._members.get(host)
        if not members:
            return None
        workloads = [self._workloads[m] for m in sorted(members)]
        ports: dict[int, ServicePort] = {}
        for workload in workloads:
            for port in workload.ports:
                ports.setdefault(port.number, _port_of(port))
        first = workloads[0]
        return Service(
            host,
            first.namespace,
            first.service,
            tuple(ports[n] for n in sorted(ports)),
            vip=self._vips.get(host, ""),
        )

    def _put_service(self, host: Host, old: Service | None, new: Service | None) -> None:
        for service, sign in ((old, -1), (new, 1)):
            if service is None:
                continue
            for port in service.ports:
                self._count_port(port, sign)
        if old is not None and old.vip:
            self._put_index("vip", old.vip, ())
        if new is not None and new.vip:
            self._put_index("vip", new.vip, (host,))
        if host.startswith("*"):
            (self._wildcards.add if new else self._wildcards.discard)(host)
            self._put_index("se-wildcard", "", tuple(sorted(self._wildcards)))
        if new is None:
            del self._services[host]
        else:
            self._services[host] = new
        self._changes[("service", host)] = new

    def _count_port(self, port: ServicePort, sign: int) -> None:
        for name, wanted in (
            ("http-ports", port.protocol.is_http),
            ("auto-ports", port.protocol is Protocol.AUTO),
        ):
            if wanted:
                self._ports[name][port.number] += sign
                if not self._ports[name][port.number]:
                    del self._ports[name][port.number]

    def _derive_endpoints(self, service: Service) -> tuple[Endpoint, ...]:
        found: list[Endpoint] = []
        for workload_id in self._members.get(service.host, ()):
            found += self._endpoints_of(self._workloads[workload_id], service, by_name=True)
        for ref in self._declared.get(service.host, ()):
            obj = self._objects[ref]
            selector = _selector_of(obj)
            if selector:
                found += self._selected(service, ref.namespace, selector)
            if str(ref) == service.origin:
                found += _listed_endpoints(obj, service)
        return tuple(sorted(set(found), key=_endpoint_order))

    def _selected(self, service: Service, namespace: Namespace, selector: Labels) -> list[Endpoint]:
        found: list[Endpoint] = []
        for workload in self._workloads.values():
            if workload.namespace == namespace and labels_match(selector, workload.labels):
                found += self._endpoints_of(workload, service, by_name=False)
        for ref in self._entries.get(namespace, ()):
            entry = self._objects[ref].spec
            if labels_match(selector, labels_of(entry.labels)):
                found += _entry_endpoints(entry, service)
        return found

    def _endpoints_of(self, workload: Workload, service: Service, *, by_name: bool) -> list[Endpoint]:
        if not workload.healthy:
            return []
        found = []
        for port in service.ports:
            mine = _matching_port(workload.ports, port, by_name=by_name)
            if mine is not None and mine.listening:
                found.append(self._endpoint(workload, port, mine))
        return found

    def _endpoint(self, workload: Workload, port: ServicePort, mine: WorkloadPort) -> Endpoint:
        trust_domain = self._settings.trust_domain
        return Endpoint(
            service_port=port.number,
            address=workload.published_address,
            port=INBOUND_PORT,
            wire=Wire.MTLS,
            app_port=mine.number,
            workload=workload.id,
            host=workload.host,
            identity=SpiffeId(
                f"spiffe://{trust_domain}/ns/{workload.namespace}/sa/{workload.service_account}"
            ),
            labels=workload.labels,
            locality=workload.locality,
            gateway_address=workload.gateway_address,
            gateway_port=workload.gateway_port,
            http_inbound=dict(workload.annotations).get(annotation.INBOUND) == "http",
        )

    def _put_endpoints(self, host: Host, new: tuple[Endpoint, ...]) -> set[str]:
        """Note the endpoints of a host; the addresses whose owner may have changed."""
        old = self._endpoints.get(host)
        if old == new or (old is None and not new and host not in self._services):
            return set()
        touched: set[str] = set()
        for endpoints, sign in ((old or (), -1), (new, 1)):
            for endpoint in endpoints:
                address = f"{endpoint.address}:{endpoint.app_port or endpoint.port}"
                for key in (address, f"{address}@{endpoint.host}") if endpoint.host else (address,):
                    self._addresses[key][host, endpoint.service_port] += sign
                    touched.add(key)
        if host in self._services:
            self._endpoints[host] = new
            self._changes[("endpoints", host)] = EndpointSet(host, new)
        else:
            self._endpoints.pop(host, None)
            self._changes[("endpoints", host)] = None
        return touched

    # -- indexes -------------------------------------------------------------------------------------------

    def _put_index(self, index: str, key: str, value: tuple[Any, ...]) -> None:
        self._changes[("index", index, key)] = value or None

    def _reindex(self, ref: ObjectRef, after: frozenset[Entry]) -> None:
        """An object has these entries now; it may be another one of the same name, and younger."""
        before = self._found_by.pop(ref, frozenset())
        if after:
            self._found_by[ref] = after
        for entry in before - after:
            self._indexed[entry].discard(ref)
        for entry in after:
            self._indexed[entry].add(ref)
        for index, key in sorted(before | after):
            members = self._indexed[index, key]
            if not members:
                del self._indexed[index, key]
            ordered = tuple(sorted(members, key=lambda r: self._objects[r].order))
            self._put_index(index, key, ("any",) if ordered and index in FLAGS else ordered)

    def _reindex_addresses(self, addresses: Iterable[str]) -> None:
        for address in addresses:
            owners = self._addresses[address]
            live = tuple(sorted(owner for owner, count in owners.items() if count > 0))
            if not live:
                del self._addresses[address]
            self._put_index("address", address, live)


def _selector_of(obj: ConfigObject) -> Labels:
    if obj.ref.kind == "Service":
        return labels_of(obj.spec.selector)
    selector = obj.spec.workload_selector
    return labels_of(selector.labels) if selector is not None else ()


def _port_of(port: WorkloadPort) -> ServicePort:
    return ServicePort(port.number, port.protocol, f"{port.protocol}-{port.number}", port.app_port)


def _matching_port(
    ports: tuple[WorkloadPort, ...], wanted: ServicePort, *, by_name: bool
) -> WorkloadPort | None:
    """The workload's port behind a service's port: by its number where the workload names the service, else
    (and for a service that selects workloads) by the target port."""
    same = next((p for p in ports if by_name and p.number == wanted.number), None)
    return same or next((p for p in ports if wanted.app_port in (p.app_port, p.number)), None)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _service_of(obj: ConfigObject, host: Host, vip: str) -> Service:
    spec = obj.spec
    ports = tuple(
        ServicePort(p.port, p.speaks, p.name, p.target_port if isinstance(p.target_port, int) else 0)
        for p in spec.ports
        if p.speaks is not None
    )
    return Service(
        host,
        obj.ref.namespace,
        obj.ref.name,
        ports,
        vip=spec.cluster_ip if _is_address(spec.cluster_ip) else vip,
        resolution=Resolution.DNS if spec.external_name else Resolution.STATIC,
        external=bool(spec.external_name),
        origin=str(obj.ref),
    )


def _external_of(obj: ConfigObject, host: Host, vip: str) -> Service:
    spec = obj.spec
    ports = tuple(
        ServicePort(p.number, p.speaks, p.name, p.target_port or 0)
        for p in spec.ports
        if p.speaks is not None
    )
    own = next((a for a in spec.addresses if _is_address(a)), vip)
    return Service(
        host,
        obj.ref.namespace,
        obj.ref.name,
        ports,
        vip="" if host.startswith("*") else own,
        resolution=_RESOLUTIONS.get(str(spec.resolution), Resolution.DNS),
        external=str(spec.location) != "MESH_INTERNAL",
        origin=str(obj.ref),
    )


def _listed_endpoints(obj: ConfigObject, service: Service) -> list[Endpoint]:
    """The endpoints that the object itself names."""
    if obj.ref.kind == "Service":
        name = obj.spec.external_name
        return [_plain(p, name, p.app_port) for p in service.ports] if name else []
    return [e for entry in obj.spec.endpoints for e in _entry_endpoints(entry, service)]


def _entry_endpoints(entry: Any, service: Service) -> list[Endpoint]:
    """The endpoints of a ``WorkloadEntry``: no proxy of ours stands before it, so it is spoken to plainly."""
    named = dict(entry.ports)
    return [
        _plain(
            port,
            entry.address,
            named.get(port.name) or port.app_port,
            labels=labels_of(entry.labels),
            locality=entry.locality,
            weight=entry.weight or 1,
        )
        for port in service.ports
    ]


def _plain(port: ServicePort, address: str, at: int, **more: Any) -> Endpoint:
    return Endpoint(port.number, address, at, Wire.PLAIN, app_port=at, **more)


def _endpoint_order(endpoint: Endpoint) -> tuple[int, str, int, str]:
    return (endpoint.service_port, endpoint.address, endpoint.port, endpoint.workload or "")
