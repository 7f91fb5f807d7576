"""From what sources say to the facts and indexes that translation reads.

Sources give configuration objects and workloads; translation wants services, endpoint sets and the answers to
questions such as "which virtual services name this host". :class:`FactBase` keeps the former and derives the
latter, again only for the hosts that a change touches: a workload that starts costs one endpoint set, not a
pass over the mesh.

A service comes from a Kubernetes ``Service``, a ``ServiceEntry``, or from workloads that name it, in this
order; ``Service`` and ``ServiceEntry`` for one host: the older object wins. An endpoint is a fact only while
its application listens and is healthy.

Index entries made here: ``vip`` and ``address`` (who has this address), ``networks`` (pairs of a network and
the hosts that have it), ``http-ports`` and ``auto-ports`` (port numbers of all services), ``se-wildcard``
(wildcard hosts), ``services`` (all hosts, for what is sent ahead of use); those of configuration objects are
listed in :mod:`retia.policy.indexes`.
"""

from __future__ import annotations

from bisect import bisect_left, insort
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
    Service,
    ServicePort,
    Wire,
    Workload,
    WorkloadPort,
    labels_of,
)
from retia.model.objects import ConfigObject, ObjectRef
from retia.model.snapshot import FactKey
from retia.policy.groups import group_of, in_group
from retia.policy.indexes import FLAGS, Entry, entries
from retia.policy.mesh_settings import effective, is_settings
from retia.policy.selecting import Labelled, Selectors
from retia.policy.services import (
    entry_endpoints,
    is_address,
    listed_endpoints,
    matching_port,
    port_of,
    selector_of,
    service_of,
    wants_address,
)


class FactBase:
    """The mutable edge of the pure part: fill it with ``put_*``, then :meth:`take_changes`."""

    def __init__(self, settings: MeshSettings) -> None:
        self._base = self._settings = settings
        self._setting: set[ObjectRef] = set()
        self._objects: dict[ObjectRef, ConfigObject] = {}
        self._workloads: dict[WorkloadId, Workload] = {}
        self._said: dict[WorkloadId, Workload] = {}
        self._grouped: dict[ObjectRef, set[WorkloadId]] = defaultdict(set)
        self._regrouped: set[WorkloadId] = set()
        self._vips: dict[Host, str] = {}
        self._changes: dict[FactKey, Any] = {("mesh",): settings}
        self._services: dict[Host, Service] = {}
        self._endpoints: dict[Host, tuple[Endpoint, ...]] = {}
        self._declared: dict[Host, list[ObjectRef]] = defaultdict(list)
        self._members: dict[Host, set[WorkloadId]] = defaultdict(set)
        self._selectors: Selectors[ObjectRef] = Selectors()
        self._labelled: Labelled[WorkloadId] = Labelled()
        self._entries: Labelled[ObjectRef] = Labelled()
        self._indexed: dict[Entry, set[ObjectRef]] = defaultdict(set)
        self._reindexed: set[Entry] = set()
        self._found_by: dict[ObjectRef, frozenset[Entry]] = {}
        self._addresses: dict[str, Counter[tuple[Host, int]]] = defaultdict(Counter)
        self._ports: dict[str, Counter[int]] = {"http-ports": Counter(), "auto-ports": Counter()}
        self._wildcards: set[Host] = set()
        self._owners: dict[str, set[Host]] = defaultdict(set)
        self._networks: dict[str, set[Host]] = defaultdict(set)
        self._hosts: list[Host] = []
        self._lacking: set[Host] = set()
        self._stale: set[Host] = set()

    # -- what sources say ----------------------------------------------------------------------------------

    def put_settings(self, settings: MeshSettings) -> None:
        """The mesh's own settings; objects (MeshConfig) are laid over them."""
        self._base = settings
        self._settle()

    def _settle(self) -> None:
        settings = effective(self._base, [self._objects[ref] for ref in self._setting])
        if settings == self._settings:
            return
        self._settings = settings
        self._changes[("mesh",)] = settings
        self._stale.update(self._services)

    @property
    def settings(self) -> MeshSettings:
        """The settings that hold."""
        return self._settings

    @property
    def own_settings(self) -> MeshSettings:
        """The settings without what objects say."""
        return self._base

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

    def drop_vips(self, hosts: Iterable[Host]) -> None:
        """The virtual addresses of vanished hosts were given back."""
        for host in hosts:
            if self._vips.pop(host, None) is not None:
                self._stale.add(host)

    def put_patch(self, ref: ObjectRef, approved: ConfigObject | None) -> None:
        """The form of an EnvoyFilter that proxies get; ``None``: none."""
        self._changes[("patch", ref.namespace, ref.name)] = approved

    def put_quarantine(self, version: str, error: str | None) -> None:
        """Withhold resources of that content (``None``: no longer)."""
        self._changes[("quarantine", version)] = error

    def put_rollout(self, ref: ObjectRef, weight: int | None) -> None:
        """A canary's share of requests now, in percent (``None``: the rollout is no more)."""
        self._changes[("rollout", ref.namespace, ref.name)] = weight

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
        return tuple(sorted(self._lacking))

    def take_changes(self) -> dict[FactKey, Any]:
        """The facts that differ since the last call; ``None`` for one that is gone."""
        self._derive()
        self._put_entries()
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
        elif is_settings(ref):
            self._setting.add(ref)
            self._settle()
        elif ref.kind == "WorkloadGroup":
            self._regroup(ref)
        elif ref.kind == "WorkloadEntry":
            labels = labels_of(obj.spec.labels)
            self._entries.put(ref, ref.namespace, labels)
            self._stale_selectors(ref.namespace, labels)

    def _unlink(self, obj: ConfigObject) -> None:
        ref = obj.ref
        if ref.kind in ("Service", "ServiceEntry"):
            for host in self._hosts_declared(obj):
                self._declared[host].remove(ref)
                self._stale.add(host)
            self._selectors.remove(ref)
        elif is_settings(ref):
            self._setting.discard(ref)
            self._settle()
        elif ref.kind == "WorkloadGroup":
            self._regroup(ref)
        elif ref.kind == "WorkloadEntry":
            self._entries.remove(ref)
            self._stale_selectors(ref.namespace, labels_of(obj.spec.labels))

    def _link_service(self, obj: ConfigObject) -> None:
        hosts = self._hosts_declared(obj)
        for host in hosts:
            self._declared[host].append(obj.ref)
            self._stale.add(host)
        self._selectors.put(obj.ref, obj.ref.namespace, selector_of(obj))

    def _hosts_declared(self, obj: ConfigObject) -> tuple[Host, ...]:
        if obj.ref.kind == "Service":
            return (service_host(obj.ref.name, obj.ref.namespace, self._settings.dns_suffix),)
        return tuple(Host(h.lower()) for h in obj.spec.hosts)

    def _stale_selectors(self, namespace: Namespace, labels: Labels) -> None:
        for ref in self._selectors.matching(namespace, labels):
            obj = self._objects.get(ref)
            if obj is not None:
                self._stale.update(self._hosts_declared(obj))

    # -- workloads -----------------------------------------------------------------------------------------

    def _regroup(self, ref: ObjectRef) -> None:
        """A group has come, changed or gone: its members are read again."""
        for workload_id in self._grouped.get(ref, ()):
            self._regrouped.add(workload_id)

    def _replace_workload(self, workload_id: WorkloadId, said: Workload | None) -> None:
        """``said``: as its agent says it; what it is in the mesh also depends on the group that it joins."""
        for known in (self._said.get(workload_id), said):
            group = group_of(known) if known is not None else None
            if group is not None:
                (self._grouped[group].discard if known is not said else self._grouped[group].add)(workload_id)
        if said is None:
            self._said.pop(workload_id, None)
        else:
            self._said[workload_id] = said
        self._put_workload(workload_id, self._in_group(said))

    def _in_group(self, said: Workload | None) -> Workload | None:
        ref = group_of(said) if said is not None else None
        group = self._objects.get(ref) if ref is not None else None
        return said if said is None or group is None else in_group(said, group.spec)

    def _put_workload(self, workload_id: WorkloadId, new: Workload | None) -> None:
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
            self._labelled.remove(workload_id)
            del self._workloads[workload_id]
        if new is not None:
            self._workloads[workload_id] = new
            self._labelled.put(workload_id, new.namespace, new.labels)
            for host in self._hosts_of(new):
                self._members[host].add(workload_id)
        self._changes[("workload", workload_id)] = new

    def _hosts_of(self, workload: Workload) -> tuple[Host, ...]:
        if not workload.service:
            return ()
        return (service_host(workload.service, workload.namespace, self._settings.dns_suffix),)

    # -- deriving ------------------------------------------------------------------------------------------

    def _derive(self) -> None:
        regrouped, self._regrouped = self._regrouped, set()
        for workload_id in sorted(regrouped):
            self._put_workload(workload_id, self._in_group(self._said.get(workload_id)))
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
            self._put_index("services", "", tuple(self._hosts))

    def _derive_service(self, host: Host) -> Service | None:
        refs = sorted(self._declared.get(host, ()), key=lambda r: self._objects[r].order)
        if refs:
            return service_of(self._objects[refs[0]], host, self._vips.get(host, ""), self._settings)
        members = self._members.get(host)
        if not members:
            return None
        workloads = [self._workloads[m] for m in sorted(members)]
        ports: dict[int, ServicePort] = {}
        for workload in workloads:
            for port in workload.ports:
                ports.setdefault(port.number, port_of(port))
        first = workloads[0]
        return Service(
            host,
            first.namespace,
            first.service,
            tuple(ports[n] for n in sorted(ports)),
            vip=self._vips.get(host, ""),
            export_to=self._settings.service_export,
        )

    def _put_service(self, host: Host, old: Service | None, new: Service | None) -> None:
        for service, sign in ((old, -1), (new, 1)):
            if service is None:
                continue
            for port in service.ports:
                self._count_port(port, sign)
        self._put_addresses(host, old, new)
        if host.startswith("*"):
            (self._wildcards.add if new else self._wildcards.discard)(host)
            self._put_index("se-wildcard", "", tuple(sorted(self._wildcards)))
        if new is None:
            del self._services[host]
            del self._hosts[bisect_left(self._hosts, host)]
        else:
            if old is None:
                insort(self._hosts, host)
            self._services[host] = new
        (self._lacking.add if new is not None and wants_address(new) else self._lacking.discard)(host)
        self._changes[("service", host)] = new

    def _put_addresses(self, host: Host, old: Service | None, new: Service | None) -> None:
        """Who has an address: several services may share one, and are told apart by their ports."""
        before = {old.vip, *old.networks} - {""} if old is not None else set()
        after = {new.vip, *new.networks} - {""} if new is not None else set()
        for address in sorted(before ^ after):
            owners = (self._owners if is_address(address) else self._networks)[address]
            (owners.add if address in after else owners.discard)(host)
            if is_address(address):
                self._put_index("vip", address, tuple(sorted(owners)))
            if not owners:
                del (self._owners if is_address(address) else self._networks)[address]
        if any(not is_address(address) for address in before ^ after):
            self._put_index(
                "networks", "", tuple((n, tuple(sorted(self._networks[n]))) for n in sorted(self._networks))
            )

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
            selector = selector_of(obj)
            if selector:
                found += self._selected(service, ref.namespace, selector)
            if str(ref) == service.origin:
                found += listed_endpoints(obj, service, self._settings.trust_domain)
        return tuple(sorted(set(found), key=_endpoint_order))

    def _selected(self, service: Service, namespace: Namespace, selector: Labels) -> list[Endpoint]:
        found: list[Endpoint] = []
        for workload_id in self._labelled.selected(namespace, selector):
            found += self._endpoints_of(self._workloads[workload_id], service, by_name=False)
        for ref in self._entries.selected(namespace, selector):
            entry = self._objects[ref].spec
            found += entry_endpoints(entry, service, ref.namespace, self._settings.trust_domain)
        return found

    def _endpoints_of(self, workload: Workload, service: Service, *, by_name: bool) -> list[Endpoint]:
        if not workload.healthy:
            return []
        found = []
        for port in service.ports:
            mine = matching_port(workload.ports, port, by_name=by_name)
            if mine is not None and mine.listening:
                found.append(self._endpoint(workload, port, mine))
        return found

    def _endpoint(self, workload: Workload, port: ServicePort, mine: WorkloadPort) -> Endpoint:
        trust_domain = self._settings.trust_domain
        said = dict(workload.annotations)
        # A gateway ends TLS as its objects say: whoever calls it from inside does so as its clients outside.
        edge = annotation.GATEWAY in said
        return Endpoint(
            service_port=port.number,
            address=_edge_address(workload, said) if edge else workload.published_address,
            port=mine.app_port if edge else INBOUND_PORT,
            wire=Wire.PLAIN if edge else Wire.MTLS,
            app_port=mine.number,
            workload=workload.id,
            host=workload.host,
            identity=SpiffeId(
                f"spiffe://{trust_domain}/ns/{workload.namespace}/sa/{workload.service_account}"
            ),
            labels=workload.labels,
            locality=workload.locality,
            weight=workload.weight,
            gateway_address=workload.gateway_address,
            gateway_port=workload.gateway_port,
            http_inbound=said.get(annotation.INBOUND) == "http",
        )

    def _put_endpoints(self, host: Host, new: tuple[Endpoint, ...]) -> set[str]:
        """Note the endpoints of a host; the addresses whose owner may have changed."""
        old = self._endpoints.get(host)
        if old == new or (old is None and not new and host not in self._services):
            return set()
        touched: set[str] = set()
        for endpoints, sign in ((old or (), -1), (new, 1)):
            for endpoint in endpoints:
                if endpoint.address.startswith("unix:"):
                    continue
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
        self._reindexed |= before | after

    def _put_entries(self) -> None:
        """The entries that objects have come to or left, in order: once for all changes together."""
        reindexed, self._reindexed = self._reindexed, set()
        for index, key in sorted(reindexed):
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


def _edge_address(workload: Workload, said: Mapping[str, str]) -> str:
    """Where a gateway is called from inside the mesh: one that listens everywhere at an address of its own,
    or, where its host has callers elsewhere, at the host's."""
    bind = said.get(annotation.GATEWAY_BIND, "")
    if bind not in ("", "0.0.0.0", "::"):
        return bind
    return workload.gateway_address or workload.published_address


def _endpoint_order(endpoint: Endpoint) -> tuple[int, str, int, str]:
    return (endpoint.service_port, endpoint.address, endpoint.port, endpoint.workload or "")
