"""xDS messages as bytes.

A resource is serialised once, when it is built; a response is the concatenation of such bytes with the type,
the names removed and the nonce (protobuf takes fields in any order, and fields of one number as a list).
Joining bytes is several times cheaper than packing messages, and equal inputs give equal bytes.

Field numbers are those of ``envoy.service.discovery.v3`` and ``google.protobuf.Any``.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

from envoy.service.discovery.v3 import discovery_pb2

from retia.model.resource import Built, Resource, TypeUrl
from retia.xds.messages import NO_VERSIONS, Request, Response

ABSENT_VERSION = "absent"
"""The version of every name that is known not to exist."""

PLACEHOLDER = "/_"
"""How the name of the resource without a message ends that each route configuration has: Envoy waits for some
answer to its first request for virtual hosts, and an empty response doesn't reach it."""

_DeltaDiscoveryRequest: Any = discovery_pb2.DeltaDiscoveryRequest  # type: ignore[attr-defined, unused-ignore]
_TYPES = {str(t): t for t in TypeUrl}


def _varint(n: int) -> bytes:
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    out.append(n)
    return bytes(out)


def _field(number: int, value: bytes) -> bytes:
    """A length-delimited field; numbers up to 15 only, which is all that these messages have."""
    size = len(value)
    head = bytes((number << 3 | 2, size)) if size < 128 else bytes((number << 3 | 2,)) + _varint(size)
    return head + value


_TYPE_IN_ANY = {t: _field(1, t.encode()) for t in TypeUrl}
_TYPE_IN_RESPONSE = {t: _field(4, t.encode()) for t in TypeUrl}


def version_of(message: bytes, aliases: tuple[str, ...] = ()) -> str:
    """A version that says what the content is: 64 bits of hash, as hexadecimal digits."""
    digest = blake2b(message, digest_size=8)
    for alias in aliases:
        digest.update(b"\0" + alias.encode())
    return digest.hexdigest()


def encode(type_url: TypeUrl, built: Built) -> Resource:
    """What a builder made, as the resource that streams carry."""
    if built.message is None:
        return absent(type_url, built.name, built)
    version = version_of(built.message, built.aliases)
    wire = b"".join(
        (
            _field(1, version.encode()),
            _field(2, _TYPE_IN_ANY[type_url] + _field(2, built.message)),
            _field(3, built.name.encode()),
            *(_field(4, alias.encode()) for alias in built.aliases),
        )
    )
    return Resource(
        type=type_url,
        name=built.name,
        version=version,
        wire=wire,
        aliases=built.aliases,
        refs=built.refs,
        provenance=built.provenance,
        findings=built.findings,
        security=built.security,
    )


def absent(type_url: TypeUrl, name: str, built: Built | None = None) -> Resource:
    """The resource for a name that is known not to exist.

    Its bytes carry no message; the name is its own alias, without which Envoy refuses it.
    """
    wire = _field(1, ABSENT_VERSION.encode()) + _field(3, name.encode()) + _field(4, name.encode())
    return Resource(
        type=type_url,
        name=name,
        version=ABSENT_VERSION,
        wire=wire,
        aliases=(name,),
        provenance=built.provenance if built else (),
        findings=built.findings if built else (),
        exists=False,
        security=built.security if built else False,
    )


def aliased(resource: Resource, aliases: tuple[str, ...]) -> Resource:
    """The same resource, known by more names; its version is the same."""
    more = tuple(a for a in aliases if a not in resource.aliases)
    if not more:
        return resource
    return Resource(
        type=resource.type,
        name=resource.name,
        version=resource.version,
        wire=resource.wire + b"".join(_field(4, a.encode()) for a in more),
        aliases=resource.aliases + more,
        refs=resource.refs,
        provenance=resource.provenance,
        findings=resource.findings,
        exists=resource.exists,
        security=resource.security,
    )


def parse_request(data: bytes) -> Request:
    """A request from its bytes. Raises ``google.protobuf.message.DecodeError`` if they aren't one."""
    message = _DeltaDiscoveryRequest.FromString(data)
    type_url: str = message.type_url
    versions = message.initial_resource_versions
    error = ""
    if message.HasField("error_detail"):
        error = message.error_detail.message or f"refused with code {message.error_detail.code}"
    return Request(
        type=_TYPES.get(type_url),
        subscribe=tuple(message.resource_names_subscribe),
        unsubscribe=tuple(message.resource_names_unsubscribe),
        initial_versions=dict(versions) if versions else NO_VERSIONS,
        nonce=message.response_nonce,
        error=error,
        node_id=message.node.id,
        type_url=type_url,
    )


def response_bytes(response: Response) -> bytes:
    """A response as bytes."""
    parts = [_field(2, r.wire) for r in response.resources]
    parts.append(_TYPE_IN_RESPONSE[response.type])
    parts.extend(_field(6, name.encode()) for name in response.removed)
    parts.append(_field(5, response.nonce.encode()))
    return b"".join(parts)
