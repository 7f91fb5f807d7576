"""Messages as a later version of the protocol would send them."""

from __future__ import annotations

from typing import TypeVar

from google.protobuf.message import Message

M = TypeVar("M", bound=Message)

UNKNOWN = bytes((0xA2, 0x7D, 5)) + b"later"
"""Field 2004, five bytes: a tag of wire type 2 (protobuf's encoding page)."""


def with_unknown_field(message: M) -> M:
    """The message with a field that this version does not know; it is sent along."""
    changed = type(message).FromString(message.SerializeToString() + UNKNOWN)
    assert changed.SerializeToString() != message.SerializeToString()
    return changed
