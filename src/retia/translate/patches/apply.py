"""Makes the changes of EnvoyFilters to one resource, kind by kind from the outside in, as Istio does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_components_pb2, route_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2

from retia.config.codes import Code, finding
from retia.config.schema.envoy_filter import (
    ApplyTo,
    Operation,
    RouteAction,
)
from retia.model.finding import Finding
from retia.model.mesh import ProxyKind
from retia.model.resource import Built, Name, Provenance, TypeUrl
from retia.model.snapshot import View
from retia.policy.patches import Change, changes, context_of, names_added
from retia.translate import pb
from retia.translate.hcm import HCM
from retia.translate.names import parse_virtual_host
from retia.translate.patches.merge import merge
from retia.translate.patches.places import position
from retia.translate.patches.sites import (
    action_of,
    filter_name,
    is_chain,
    is_cluster,
    is_host,
    is_inbound,
    is_listener,
    is_routes,
    listener_match,
    routes_match,
    sub_filter_name,
    today,
)
from retia.translate.patches.values import BadValueError, parse

_MESSAGES: dict[TypeUrl, Any] = {
    TypeUrl.LISTENER: listener_pb2.Listener,
    TypeUrl.ROUTE: route_pb2.RouteConfiguration,
    TypeUrl.VIRTUAL_HOST: route_components_pb2.VirtualHost,
    TypeUrl.CLUSTER: cluster_pb2.Cluster,
}
_WHOLE = {TypeUrl.LISTENER: ApplyTo.LISTENER, TypeUrl.CLUSTER: ApplyTo.CLUSTER}


def patched(view: View, name: Name, built: Built) -> Built:
    """``built`` with the changes that are for it, or made of a change that adds it."""
    kind = _MESSAGES.get(name.type)
    if kind is None:
        return built
    work = _Work(view, name)
    if built.message is None:
        added = work.added()
        if added is None:
            return built
        message = added
    else:
        message = kind.FromString(built.message)
    kept = work.run(message)
    if not work.provenance and not work.findings:
        return built
    return Built(
        built.name if built.message is not None else name.name,
        pb.dump(message) if kept else None,
        aliases=built.aliases,
        refs=built.refs if kept else (),
        provenance=(*built.provenance, *dict.fromkeys(work.provenance)),
        findings=(*built.findings, *dict.fromkeys(work.findings)),
        security=built.security,
    )


def added_names(view: View, type_url: TypeUrl) -> tuple[str, ...]:
    """The listeners or clusters that changes add for this proxy."""
    apply_to = _WHOLE.get(type_url)
    if apply_to is None or view.proxy("kind") is ProxyKind.HOST_GATEWAY:
        return ()
    found = (_name_of(change) for change in _adding(view, apply_to))
    return tuple(sorted({name for name in found if name}))


def _adding(view: View, apply_to: ApplyTo) -> tuple[Change, ...]:
    outbound = names_added(view, apply_to, context_of(view, inbound=False))
    inbound = names_added(view, apply_to, context_of(view, inbound=True))
    named = tuple(c for c in inbound if c not in outbound and c.patch.match is not None)
    return outbound + named


def _name_of(change: Change) -> str:
    try:
        return str(parse(change.patch.apply_to, change.patch.patch.value or "{}").name)
    except BadValueError:
        return ""


class _Work:
    """The changes to one resource and what came of them."""

    def __init__(self, view: View, name: Name) -> None:
        self.view = view
        self.name = name
        self.context = context_of(view, inbound=is_inbound(name))
        self.provenance: list[Provenance] = []
        self.findings: list[Finding] = []

    def added(self) -> Any:
        apply_to = _WHOLE.get(self.name.type)
        if apply_to is None or self.view.proxy("kind") is ProxyKind.HOST_GATEWAY:
            return None
        for change in _adding(self.view, apply_to):
            if _name_of(change) == self.name.name:
                self.provenance.append(change.provenance)
                return self.value(change)
        return None

    def run(self, message: Any) -> bool:
        """Change the message; false: it is removed."""
        if self.view.proxy("kind") is ProxyKind.HOST_GATEWAY:
            return True
        match self.name.type:
            case TypeUrl.CLUSTER:
                return self._cluster(message)
            case TypeUrl.LISTENER:
                return self._listener(message)
            case TypeUrl.ROUTE:
                self._route_configuration(message)
            case TypeUrl.VIRTUAL_HOST:
                host = parse_virtual_host(self.name.name)
                name = host.route_config if host is not None else ""
                return self._virtual_host(message, name)
        return True

    def each(self, apply_to: ApplyTo) -> Iterator[Change]:
        return (c for c in changes(self.view, apply_to) if c.is_for(self.context))

    def value(self, change: Change) -> Any:
        """The change's message; ``None`` where it can't be read, which is noted."""
        try:
            return parse(change.patch.apply_to, change.patch.patch.value or "{}")
        except BadValueError as error:
            self.findings.append(
                finding(Code.BAD_VALUE, f"{error}", ref=change.ref, field=f"{change.field}.patch.value")
            )
            return None

    def merge(self, change: Change, target: Any) -> None:
        value = self.value(change)
        if value is not None:
            merge(target, value)
            self.provenance.append(change.provenance)

    # -- clusters ------------------------------------------------------------------------------------------

    def _cluster(self, message: Any) -> bool:
        for change in self.each(ApplyTo.CLUSTER):
            operation = change.patch.patch.operation
            if operation is Operation.ADD or not is_cluster(change, message):
                continue
            if operation is Operation.REMOVE:
                self.provenance.append(change.provenance)
                return False
            self.merge(change, message)
        return True

    # -- listeners -----------------------------------------------------------------------------------------

    def _listener(self, message: Any) -> bool:
        for change in self.each(ApplyTo.LISTENER):
            operation = change.patch.patch.operation
            if operation is Operation.ADD or not is_listener(change, message):
                continue
            if operation is Operation.REMOVE:
                self.provenance.append(change.provenance)
                return False
            self.merge(change, message)
        for change in self.each(ApplyTo.LISTENER_FILTER):
            if is_listener(change, message):
                match = listener_match(change)
                self.edit(change, message.listener_filters, match.listener_filter if match else "")
        self._chains(message)
        return True

    def _chains(self, message: Any) -> None:
        for index in reversed(range(len(message.filter_chains))):
            if not self._chain(message, message.filter_chains[index]):
                del message.filter_chains[index]
        if message.HasField("default_filter_chain") and not self._chain(
            message, message.default_filter_chain
        ):
            message.ClearField("default_filter_chain")
        for change in self.each(ApplyTo.FILTER_CHAIN):
            if change.patch.patch.operation is Operation.ADD and is_listener(change, message):
                value = self.value(change)
                if value is not None:
                    message.filter_chains.append(value)
                    self.provenance.append(change.provenance)

    def _chain(self, listener: Any, chain: Any) -> bool:
        for change in self.each(ApplyTo.FILTER_CHAIN):
            operation = change.patch.patch.operation
            if operation is Operation.ADD or not is_chain(change, listener, chain):
                continue
            if operation is Operation.REMOVE:
                self.provenance.append(change.provenance)
                return False
            self.merge(change, chain)
        for change in self.each(ApplyTo.NETWORK_FILTER):
            if is_chain(change, listener, chain):
                self.edit(change, chain.filters, filter_name(change))
        for network_filter in chain.filters:
            if network_filter.name == HCM:
                self._manager(listener, chain, network_filter)
        return True

    def _manager(self, listener: Any, chain: Any, network_filter: Any) -> None:
        manager = http_connection_manager_pb2.HttpConnectionManager()
        network_filter.typed_config.Unpack(manager)
        before = len(self.provenance)
        for change in self.each(ApplyTo.HTTP_FILTER):
            wanted = filter_name(change)
            if is_chain(change, listener, chain) and wanted in ("", HCM):
                self.edit(change, manager.http_filters, sub_filter_name(change))
        self._extensions(manager)
        if manager.HasField("route_config"):
            self._route_configuration(manager.route_config)
        if len(self.provenance) != before:
            pb.pack(network_filter.typed_config, manager)

    def _extensions(self, manager: Any) -> None:
        """Filters that refer to an extension's configuration get it in place: nothing else serves it."""
        for http_filter in manager.http_filters:
            if not http_filter.HasField("config_discovery"):
                continue
            for change in self.each(ApplyTo.EXTENSION_CONFIG):
                value = self.value(change)
                if value is not None and value.name == http_filter.name:
                    http_filter.typed_config.CopyFrom(value.typed_config)
                    self.provenance.append(change.provenance)

    # -- routes --------------------------------------------------------------------------------------------

    def _route_configuration(self, message: Any) -> None:
        for change in self.each(ApplyTo.ROUTE_CONFIGURATION):
            if is_routes(change, message.name):
                self.merge(change, message)
        for index in reversed(range(len(message.virtual_hosts))):
            if not self._virtual_host(message.virtual_hosts[index], message.name):
                del message.virtual_hosts[index]
        for change in self.each(ApplyTo.VIRTUAL_HOST):
            if change.patch.patch.operation is Operation.ADD and is_routes(change, message.name):
                if message.HasField("vhds"):
                    self._note_on_demand(change)
                    continue
                value = self.value(change)
                if value is not None:
                    message.virtual_hosts.append(value)
                    self.provenance.append(change.provenance)

    def _note_on_demand(self, change: Change) -> None:
        self.findings.append(
            finding(
                Code.UNSUPPORTED_FIELD,
                "sidecars ask for virtual hosts by the names of services; none is added to them",
                ref=change.ref,
                field=f"{change.field}.patch.operation",
                remedy="name the host in a ServiceEntry and a VirtualService",
            )
        )

    def _virtual_host(self, message: Any, routes: str) -> bool:
        for change in self.each(ApplyTo.VIRTUAL_HOST):
            operation = change.patch.patch.operation
            if operation is Operation.ADD or not is_host(change, message, routes):
                continue
            if operation is Operation.REMOVE:
                self.provenance.append(change.provenance)
                return False
            self.merge(change, message)
        for change in self.each(ApplyTo.HTTP_ROUTE):
            if is_host(change, message, routes):
                self._route(change, message.routes)
        return True

    def _route(self, change: Change, routes: Any) -> None:
        match = routes_match(change)
        wanted = match.vhost.route if match is not None and match.vhost is not None else None
        name = wanted.name if wanted is not None else ""
        action = wanted.action if wanted is not None else RouteAction.ANY

        def is_it(route: Any) -> bool:
            return name in ("", route.name) and action in (RouteAction.ANY, action_of(route))

        self._edit(change, routes, is_it, matched=bool(name) or action is not RouteAction.ANY)

    # -- lists ---------------------------------------------------------------------------------------------

    def edit(self, change: Change, filters: Any, wanted: str) -> None:
        """Change a list of filters; ``wanted``: the name of the one that the change is about, empty: none."""
        wanted = today(wanted)
        self._edit(change, filters, lambda each: wanted in ("", each.name), matched=bool(wanted))

    def _edit(self, change: Change, items: Any, is_it: Callable[[Any], bool], *, matched: bool) -> None:
        operation = change.patch.patch.operation
        if operation is Operation.MERGE:
            for item in items:
                if is_it(item):
                    self._merge_item(change, item)
            return
        if operation is Operation.REMOVE:
            doomed = [i for i, item in enumerate(items) if matched and is_it(item)]
            for index in reversed(doomed):
                del items[index]
            if doomed:
                self.provenance.append(change.provenance)
            return
        value = self.value(change)
        if value is None:
            return
        if operation is Operation.REPLACE:
            for item in items:
                if matched and is_it(item):
                    item.CopyFrom(value)
                    self.provenance.append(change.provenance)
            return
        at = position(change, items, is_it, matched=matched)
        if at is not None:
            items.insert(at, value)
            self.provenance.append(change.provenance)

    def _merge_item(self, change: Change, item: Any) -> None:
        """A filter's packed configuration takes over the type that it has: old objects name old types."""
        value = self.value(change)
        if value is None:
            return
        if item.DESCRIPTOR.fields_by_name.get("typed_config") and value.HasField("typed_config"):
            name = item.typed_config.TypeName()
            if name and value.typed_config.TypeName() != name and "TypedStruct" not in name:
                value.typed_config.type_url = item.typed_config.type_url
        merge(item, value)
        self.provenance.append(change.provenance)
