"""Merging one message into another as Istio's ``MERGE`` does: what is set replaces, messages merge field by
field, lists grow, maps take over keys, packed messages of one type are merged inside their packing."""

from __future__ import annotations

from typing import Any

from google.protobuf import any_pb2, descriptor, message_factory

from retia.translate.patches.values import load_type

_ANY = any_pb2.Any.DESCRIPTOR.full_name
_WHOLE = frozenset(
    {
        "google.protobuf.Duration",
        "google.protobuf.BoolValue",
        "google.protobuf.UInt32Value",
        "google.protobuf.UInt64Value",
        "google.protobuf.DoubleValue",
        "google.protobuf.StringValue",
    }
)
"""Values, not structures: 5 s merged with 200 ms is 200 ms."""


def merge(target: Any, source: Any) -> None:
    """Merge ``source`` into ``target``; both are messages of one type."""
    if target.DESCRIPTOR.full_name == _ANY:
        _merge_any(target, source)
        return
    for field, value in source.ListFields():
        name = field.name
        if field.is_repeated and _is_map(field):
            _merge_map(getattr(target, name), value, field)
        elif field.is_repeated:
            getattr(target, name).extend(value)
        elif field.message_type is None:
            setattr(target, name, value)
        elif field.message_type.full_name in _WHOLE or not target.HasField(name):
            getattr(target, name).CopyFrom(value)
        else:
            merge(getattr(target, name), value)


def _is_map(field: Any) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _merge_map(target: Any, source: Any, field: Any) -> None:
    is_message = field.message_type.fields_by_name["value"].type == descriptor.FieldDescriptor.TYPE_MESSAGE
    for key in source:
        if not is_message:
            target[key] = source[key]
        elif key in target:
            merge(target[key], source[key])
        else:
            target[key].CopyFrom(source[key])


def _merge_any(target: Any, source: Any) -> None:
    if target.TypeName() != source.TypeName():
        target.CopyFrom(source)
        return
    load_type(target.TypeName())
    pool = target.DESCRIPTOR.file.pool
    try:
        kind = message_factory.GetMessageClass(pool.FindMessageTypeByName(target.TypeName()))
    except KeyError:
        target.CopyFrom(source)
        return
    mine, theirs = kind(), kind()
    target.Unpack(mine)
    source.Unpack(theirs)
    merge(mine, theirs)
    target.value = mine.SerializeToString(deterministic=True)
