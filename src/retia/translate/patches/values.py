"""Users' JSON as Envoy's messages.

``Any`` fields name types of all of Envoy's extensions; the modules that define one, of over a thousand, are
loaded when it is first named. A type that is not known here is left to Envoy as a ``TypedStruct``, if that
is how it was written.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import re
from functools import cache
from typing import Any

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import extension_pb2
from envoy.config.listener.v3 import listener_components_pb2, listener_pb2
from envoy.config.route.v3 import route_components_pb2, route_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from google.protobuf import json_format

from retia.config.schema.envoy_filter import ApplyTo, ConfigPatch

_TYPES: dict[ApplyTo, Any] = {
    ApplyTo.LISTENER: listener_pb2.Listener,
    ApplyTo.FILTER_CHAIN: listener_components_pb2.FilterChain,
    ApplyTo.NETWORK_FILTER: listener_components_pb2.Filter,
    ApplyTo.LISTENER_FILTER: listener_components_pb2.ListenerFilter,
    ApplyTo.HTTP_FILTER: http_connection_manager_pb2.HttpFilter,
    ApplyTo.ROUTE_CONFIGURATION: route_pb2.RouteConfiguration,
    ApplyTo.VIRTUAL_HOST: route_components_pb2.VirtualHost,
    ApplyTo.HTTP_ROUTE: route_components_pb2.Route,
    ApplyTo.CLUSTER: cluster_pb2.Cluster,
    ApplyTo.EXTENSION_CONFIG: extension_pb2.TypedExtensionConfig,
}
_TYPE_URL = re.compile(r'"@type":"[^"/]*/([a-zA-Z0-9_.]+)"')
_OUR_PACKAGES = ("envoy", "xds", "udpa")
"""Roots of generated modules that a type may be looked up in; nothing else is ever imported."""


class BadValueError(Exception):
    """The value is not one of the message that it is to change."""


def check(patch: ConfigPatch) -> None:
    """Raise :class:`BadValueError` where the value can't be read."""
    if patch.patch.value is not None:
        parse(patch.apply_to, patch.patch.value)


def parse(apply_to: ApplyTo, value: str) -> Any:
    """The value as a message, a new one each time: messages are mutable."""
    message = _TYPES[apply_to]()
    message.ParseFromString(_parsed(apply_to, value))
    return message


@cache
def _parsed(apply_to: ApplyTo, value: str) -> bytes:
    for name in sorted(set(_TYPE_URL.findall(value))):
        load_type(name)
    message = _TYPES[apply_to]()
    try:
        json_format.ParseDict(json.loads(value), message)
    except (json_format.ParseError, ValueError, TypeError, KeyError) as error:
        reason = str(error).partition("\n")[0]  # What follows lists all fields of the message.
        raise BadValueError(f"is no {_TYPES[apply_to].DESCRIPTOR.full_name}: {reason}") from error
    data: bytes = message.SerializeToString(deterministic=True)
    return data


@cache
def load_type(full_name: str) -> None:
    """Import the modules that may define a type, so that the descriptor pool knows it; unknown ones are
    ignored here and refused where they are used."""
    package, _, _ = full_name.rpartition(".")
    if package.partition(".")[0] not in _OUR_PACKAGES:
        return
    try:
        found = importlib.import_module(package)
    except ImportError:
        return
    for module in pkgutil.iter_modules(found.__path__):
        if module.name.endswith("_pb2"):
            importlib.import_module(f"{package}.{module.name}")
