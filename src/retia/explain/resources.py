"""Where messages come from, and how what is packed in them is opened."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_components_pb2, route_pb2
from google.protobuf import descriptor_pool, json_format, message_factory
from google.protobuf.message import DecodeError

from retia.model.resource import Name, TypeUrl

Lookup = Callable[[Name], Any]
"""The message of a name or alias; ``None``: there is none."""

MESSAGES: dict[TypeUrl, Any] = {
    TypeUrl.CLUSTER: cluster_pb2.Cluster,
    TypeUrl.ENDPOINTS: endpoint_pb2.ClusterLoadAssignment,
    TypeUrl.LISTENER: listener_pb2.Listener,
    TypeUrl.ROUTE: route_pb2.RouteConfiguration,
    TypeUrl.VIRTUAL_HOST: route_components_pb2.VirtualHost,
}


def from_bytes(get: Callable[[Name], bytes | None]) -> Lookup:
    """A lookup on top of one that gives bytes; each name is decoded once."""
    held: dict[Name, Any] = {}

    def lookup(name: Name) -> Any:
        if name not in held:
            found = get(name)
            held[name] = None if found is None else MESSAGES[name.type].FromString(found)
        return held[name]

    return lookup


def type_of(packed: Any) -> str:
    """The full name of the message in an ``Any``; empty: there is none."""
    return str(packed.type_url).rpartition("/")[2]


def unpack(packed: Any) -> Any:
    """The message in an ``Any``; ``None`` where its type isn't known here, or its bytes aren't of it."""
    name = type_of(packed)
    try:
        descriptor = descriptor_pool.Default().FindMessageTypeByName(name)
        return message_factory.GetMessageClass(descriptor).FromString(packed.value)
    except (KeyError, DecodeError):
        return None


def seconds(duration: Any) -> float:
    """A ``Duration`` as seconds."""
    return float(duration.seconds + duration.nanos / 1e9)


def share(percent: Any) -> float:
    """A ``FractionalPercent`` as 0..1."""
    return min(1.0, float(percent.numerator) / (100, 10_000, 1_000_000)[percent.denominator])


def words(message: Any) -> str:
    """A message on one line, for people; nothing in it is left out but what is packed and unknown."""
    if message is None:
        return "not readable here"
    try:
        found = json_format.MessageToDict(message, preserving_proto_field_name=True)
    except (TypeError, ValueError, json_format.Error):
        return f"{message.DESCRIPTOR.name} (holds something that is not readable here)"
    return _compact(found) if found else "as Envoy's defaults are"


def plain(packed: Any) -> Any:
    """What an ``Any`` holds as JSON data; what can't be read is shown by its type and size alone."""
    message = unpack(packed)
    if message is None:
        return {"@type": type_of(packed), "size_bytes": len(packed.value)}
    return _plain(message)


def _plain(message: Any) -> Any:
    try:
        return json_format.MessageToDict(message, preserving_proto_field_name=True)
    except (TypeError, ValueError, json_format.Error):
        return _field_by_field(message)


def _field_by_field(message: Any) -> Any:
    """A message with something inside that has no known type."""
    if message.DESCRIPTOR.full_name == "google.protobuf.Any":
        inner = unpack(message)
        if inner is None:
            return {"@type": type_of(message), "size_bytes": len(message.value)}
        return {"@type": type_of(message), "value": _plain(inner)}
    found = {}
    for field, value in message.ListFields():
        if field.message_type is None:
            found[field.name] = list(value) if field.is_repeated else value
        elif field.message_type.GetOptions().map_entry:
            found[field.name] = {
                str(k): _plain(v) if hasattr(v, "DESCRIPTOR") else v for k, v in value.items()
            }
        else:
            found[field.name] = [_plain(v) for v in value] if field.is_repeated else _plain(value)
    return found


def _compact(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(
            f"{key} {_compact(item) if not isinstance(item, (dict, list)) else '(' + _compact(item) + ')'}"
            for key, item in value.items()
            if key != "@type"
        )
    if isinstance(value, list):
        return "; ".join(_compact(item) for item in value)
    return str(value).lower() if isinstance(value, bool) else str(value)
