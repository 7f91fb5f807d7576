"""``EnvoyFilter``: raw changes to what is generated for Envoy. networking.istio.io.

The values are Envoy's own messages as JSON. They are kept as text here: whether they are right, Envoy says.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainSerializer

from retia.config.codes import Code
from retia.config.schema.base import FrozenMap, Model, Problem, one_of
from retia.config.schema.selector import EntrySelector
from retia.config.schema.types import Text

MAX_PORT = 65535


class ApplyTo(StrEnum):
    """What is changed."""

    LISTENER = "LISTENER"
    FILTER_CHAIN = "FILTER_CHAIN"
    NETWORK_FILTER = "NETWORK_FILTER"
    HTTP_FILTER = "HTTP_FILTER"
    ROUTE_CONFIGURATION = "ROUTE_CONFIGURATION"
    VIRTUAL_HOST = "VIRTUAL_HOST"
    HTTP_ROUTE = "HTTP_ROUTE"
    CLUSTER = "CLUSTER"
    EXTENSION_CONFIG = "EXTENSION_CONFIG"
    BOOTSTRAP = "BOOTSTRAP"
    LISTENER_FILTER = "LISTENER_FILTER"


class PatchContext(StrEnum):
    ANY = "ANY"
    SIDECAR_INBOUND = "SIDECAR_INBOUND"
    SIDECAR_OUTBOUND = "SIDECAR_OUTBOUND"
    GATEWAY = "GATEWAY"
    WAYPOINT = "WAYPOINT"


class Operation(StrEnum):
    MERGE = "MERGE"
    ADD = "ADD"
    REMOVE = "REMOVE"
    INSERT_BEFORE = "INSERT_BEFORE"
    INSERT_AFTER = "INSERT_AFTER"
    INSERT_FIRST = "INSERT_FIRST"
    REPLACE = "REPLACE"


class FilterClass(StrEnum):
    UNSPECIFIED = "UNSPECIFIED"
    AUTHN = "AUTHN"
    AUTHZ = "AUTHZ"
    STATS = "STATS"


def _to_text(value: Any) -> str:
    if isinstance(value, str):
        value = json.loads(value)  # read back from this model's own form
    if not isinstance(value, dict):
        raise ValueError("must be an object: one of Envoy's messages")
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


JsonObject = Annotated[str, BeforeValidator(_to_text), PlainSerializer(json.loads)]
"""An object of the document as JSON text: sorted, so that equal objects are equal text."""


class SubFilterMatch(Model):
    name: Text = ""


class FilterMatch(Model):
    name: Text = ""
    sub_filter: SubFilterMatch | None = None


class FilterChainMatch(Model):
    """All that is given must be equal."""

    name: Text = ""
    sni: Text = ""
    transport_protocol: Text = ""
    application_protocols: Text = ""
    filter: FilterMatch | None = None
    destination_port: Annotated[int, Field(ge=0, le=MAX_PORT)] = 0
    """0: any."""


class ListenerMatch(Model):
    port_number: Annotated[int, Field(ge=0, le=MAX_PORT)] = 0
    """0: any."""
    port_name: Text = ""
    filter_chain: FilterChainMatch | None = None
    listener_filter: Text = ""
    name: Text = ""


class RouteAction(StrEnum):
    ANY = "ANY"
    ROUTE = "ROUTE"
    REDIRECT = "REDIRECT"
    DIRECT_RESPONSE = "DIRECT_RESPONSE"


class RouteMatch(Model):
    name: Text = ""
    action: RouteAction = RouteAction.ANY


class VirtualHostMatch(Model):
    name: Text = ""
    """``host:port``, the first name of the virtual host."""
    route: RouteMatch | None = None
    domain_name: Text = ""


class RouteConfigurationMatch(Model):
    port_number: Annotated[int, Field(ge=0, le=MAX_PORT)] = 0
    port_name: Text = ""
    gateway: Text = ""
    """``namespace/name``."""
    vhost: VirtualHostMatch | None = None
    name: Text = ""


class ClusterMatch(Model):
    port_number: Annotated[int, Field(ge=0, le=MAX_PORT)] = 0
    service: Text = ""
    """The full host."""
    subset: Text = ""
    name: Text = ""


class ProxyMatch(Model):
    proxy_version: Text = ""
    metadata: FrozenMap[Text, Text] = ()


class PatchMatch(Model):
    context: PatchContext = PatchContext.ANY
    proxy: ProxyMatch | None = None
    listener: ListenerMatch | None = None
    route_configuration: RouteConfigurationMatch | None = None
    cluster: ClusterMatch | None = None

    def problems(self) -> Iterator[Problem]:
        yield from one_of(self, "listener", "route_configuration", "cluster")


class Patch(Model):
    operation: Operation
    value: JsonObject | None = None
    filter_class: FilterClass = FilterClass.UNSPECIFIED

    def problems(self) -> Iterator[Problem]:
        if self.value is None and self.operation is not Operation.REMOVE:
            yield Problem(("value",), f"is missing; {self.operation} needs one", Code.MISSING_FIELD)


_INSERTS = (Operation.INSERT_BEFORE, Operation.INSERT_AFTER, Operation.INSERT_FIRST)
_IN_LISTS = (ApplyTo.NETWORK_FILTER, ApplyTo.HTTP_FILTER, ApplyTo.LISTENER_FILTER)


class ConfigPatch(Model):
    apply_to: ApplyTo
    match: PatchMatch | None = None
    """Absent: everything of that kind."""
    patch: Patch

    def problems(self) -> Iterator[Problem]:
        operation, kind = self.patch.operation, self.apply_to
        at = ("patch", "operation")
        if operation in _INSERTS and kind not in (*_IN_LISTS, ApplyTo.HTTP_ROUTE):
            yield Problem(at, f"is {operation}, which only filters and routes have")
        if operation is Operation.REPLACE and kind not in _IN_LISTS:
            yield Problem(at, "is REPLACE, which only filters have; use MERGE, or REMOVE and ADD")
        if kind is ApplyTo.EXTENSION_CONFIG and operation is not Operation.ADD:
            yield Problem(at, f"is {operation}; an EXTENSION_CONFIG can only be added (ADD)")
        if kind is ApplyTo.ROUTE_CONFIGURATION and operation is not Operation.MERGE:
            yield Problem(at, f"is {operation}; a ROUTE_CONFIGURATION can only be merged (MERGE)")


class TargetReference(Model):
    group: Text = ""
    kind: Text
    name: Text
    namespace: Text = ""


class EnvoyFilter(Model):
    """For the proxies of selected workloads of its namespace; in the root namespace: of the whole mesh."""

    workload_selector: EntrySelector | None = None
    """Absent: all of the namespace."""
    target_refs: tuple[TargetReference, ...] = ()
    config_patches: Annotated[tuple[ConfigPatch, ...], Field(max_length=512)] = ()
    priority: Annotated[int, Field(ge=-(2**31), lt=2**31)] = 0
    """Lower is earlier; equal ones by age, then name."""
