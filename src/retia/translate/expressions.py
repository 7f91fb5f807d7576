"""Conditions and counting keys as CEL, the language in which Envoy evaluates what a request is.

One expression says a whole condition, alternatives included, so that a request for which two of them hold is
counted once. Texts are quoted here and nowhere else.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

from retia.model.objects import ObjectRef
from retia.policy.ratelimit.forms import Condition, Key, KeyKind, Test, TestKind

CALLER = "connection.uri_san_peer_certificate"
"""The SPIFFE id of who called; an error for callers without a certificate."""
NONE = "-"
"""What is counted for a request that lacks the key."""
ALWAYS = "true"


def anyone_of(conditions: Iterable[Condition], caller: str = "") -> str:
    """True if one of the conditions holds; :data:`ALWAYS` where there is none. ``caller``: the SPIFFE id of
    all who call here, where that is known beforehand."""
    parts = [all_of(condition, caller) for condition in conditions]
    if not parts or ALWAYS in parts:
        return ALWAYS
    return " || ".join(parts)


def all_of(condition: Condition, caller: str = "") -> str:
    """True if the whole condition holds."""
    parts = []
    if condition.method:
        parts.append(f"request.method == {quoted(condition.method)}")
    if condition.path is not None:
        parts.append(compared("request.url_path", condition.path))
    for name, test in condition.headers:
        parts.append(_header(name, test))
    if condition.identities:
        value = quoted(caller) if caller else CALLER
        parts.append(_joined(compared(value, test) for test in condition.identities))
    if condition.networks:
        parts.append(_joined(f"source.address.matches({quoted(network(n))})" for n in condition.networks))
    parts = [part for part in parts if part != ALWAYS]
    return f"({' && '.join(parts)})" if parts else ALWAYS


def compared(value: str, test: Test) -> str:
    """Whether ``value``, an expression, passes the test."""
    match test.kind:
        case TestKind.EXACT:
            return f"{value} == {quoted(test.value)}"
        case TestKind.PREFIX:
            return f"{value}.startsWith({quoted(test.value)})"
        case TestKind.SEGMENTS:
            whole = test.value.rstrip("/")
            if not whole:
                return ALWAYS
            return f"({value} == {quoted(whole)} || {value}.startsWith({quoted(whole + '/')}))"
        case TestKind.REGEX:
            return f"{value}.matches({quoted(f'^(?:{test.value})$')})"
        case _:
            return ALWAYS


def made_by(ref: ObjectRef, field: str) -> str:
    """Whether the request's route was made by that rule (see ``put_origin`` in ``rules``)."""
    origin = "xds.route_metadata.filter_metadata['retia']"
    return f"{origin}['object'] == {quoted(str(ref))} && {origin}['field'] == {quoted(field)}"


def key_value(key: Key, caller: str = "") -> str:
    """The text by which requests are counted apart."""
    match key.kind:
        case KeyKind.HEADER:
            name = quoted(key.name)
            return f"{name} in request.headers ? request.headers[{name}] : '{NONE}'"
        case KeyKind.PATH:
            return "request.url_path"
        case KeyKind.IDENTITY if caller:
            return quoted(caller)
        case _:
            return f"connection.mtls ? {CALLER} : '{NONE}'"


def network(text: str) -> str:
    """A regular expression for ``ip:port`` with an address of an IPv4 network."""
    net = ipaddress.IPv4Network(text, strict=False)
    octets = net.network_address.packed
    parts = []
    for index, octet in enumerate(octets):
        free_bits = 8 - min(8, max(0, net.prefixlen - 8 * index))
        if free_bits == 0:
            parts.append(str(octet))
        elif free_bits == 8:
            parts.append("[0-9]+")
        else:
            parts.append(f"(?:{'|'.join(str(octet + n) for n in range(1 << free_bits))})")
    return "^" + re.escape(".").join(parts) + "(?::[0-9]+)?$"


def quoted(text: str) -> str:
    """A text as CEL writes it."""
    return "'" + "".join(_ESCAPES.get(c, c) if c.isprintable() else f"\\U{ord(c):08x}" for c in text) + "'"


_ESCAPES = {"\\": "\\\\", "'": "\\'"}


def _header(name: str, test: Test) -> str:
    key = quoted(name)
    there = f"{key} in request.headers"
    if test.kind is TestKind.PRESENT:
        return there
    return f"({there} && {compared(f'request.headers[{key}]', test)})"


def _joined(parts: Iterable[str]) -> str:
    found = list(parts)
    return found[0] if len(found) == 1 else f"({' || '.join(found)})"
