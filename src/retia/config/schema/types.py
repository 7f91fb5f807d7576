"""The exact types of single fields: what a value may be, decided once.

Validators raise ``ValueError`` whose message is the rule, to be read after the field's name: ``must be …``.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, Strict

from retia.config import names, re2
from retia.config.codes import Code
from retia.config.duration import Duration
from retia.config.schema.base import FrozenMap, Model, Problem, one_of
from retia.model.mesh import Labels

Text = Annotated[str, Strict()]
Flag = Annotated[bool, Strict()]
Int = Annotated[int, Strict()]
Number = Annotated[float, Strict()]
Count = Annotated[int, Strict(), Field(ge=0, le=2**31 - 1)]
"""0 or more; what an int32 holds."""
UInt32 = Annotated[int, Strict(), Field(ge=0, le=2**32 - 1)]
UInt64 = Annotated[int, Strict(), Field(ge=0, le=2**64 - 1)]
Port = Annotated[int, Strict(), Field(ge=1, le=65535)]
PortKey = Annotated[int, Field(ge=1, le=65535)]
"""A port as the key of a map, where YAML and JSON have text."""
Percentage = Annotated[float, Strict(), Field(ge=0, le=100)]
WholePercent = Annotated[int, Strict(), Field(ge=0, le=100)]
HttpStatus = Annotated[int, Strict(), Field(ge=200, le=599)]


def _rule(check: Callable[[str], str | None]) -> AfterValidator:
    def validate(text: str) -> str:
        broken = check(text)
        if broken:
            raise ValueError(broken)
        return text

    return AfterValidator(validate)


def _positive(value: Duration) -> Duration:
    if value < 0.001:
        raise ValueError("must be 1ms or more")
    return _whole_ms(value)


def _not_negative(value: Duration) -> Duration:
    if value < 0:
        raise ValueError("must be 0s or more")
    return _whole_ms(value)


def _whole_ms(value: Duration) -> Duration:
    if value.nanoseconds % 10**6:
        raise ValueError("must be a whole number of milliseconds")
    return value


PositiveDuration = Annotated[Duration, AfterValidator(_positive)]
"""1 ms or more, in whole milliseconds (Istio's rule for nearly all durations)."""
ZeroOrDuration = Annotated[Duration, AfterValidator(_not_negative)]
"""As above, or 0s where that has a meaning of its own."""


def _host(text: str) -> str | None:
    return names.host_rule(text, wildcard=False)


def _wildcard_host(text: str) -> str | None:
    return names.host_rule(text, wildcard=True)


def _host_or_ip(text: str) -> str | None:
    return None if names.is_ip(text) else _wildcard_host(text)


def _no_star(text: str) -> str | None:
    return "must not be * alone" if text == "*" else _wildcard_host(text)


def _label(text: str) -> str | None:
    return None if names.is_label(text) else "must be a DNS label: at most 63 letters, digits and -"


def _network(text: str) -> str | None:
    return None if names.is_network(text) else "must be an IP address or a network such as 10.1.0.0/16"


_NORMAL = AfterValidator(names.normal_host)
HostName = Annotated[str, Strict(), _rule(_host), _NORMAL]
"""A host name without wildcard, lower case."""
WildcardHost = Annotated[str, Strict(), _rule(_wildcard_host), _NORMAL]
HostOrAddress = Annotated[str, Strict(), _rule(_host_or_ip), _NORMAL]
DestinationHost = Annotated[str, Strict(), _rule(_no_star), _NORMAL]
"""A host, possibly with a wildcard, but not ``*`` alone."""
DnsLabel = Annotated[str, Strict(), _rule(_label)]
Network = Annotated[str, Strict(), _rule(_network)]


def _gateway(text: str) -> str | None:
    namespace, slash, name = text.partition("/")
    if not slash:
        return _host(text)
    if names.is_label(namespace) and names.is_label(name):
        return None
    return "must be mesh, NAME or NAMESPACE/NAME"


def _visibility(text: str) -> str | None:
    return None if text in ("*", ".", "~") or names.is_label(text) else 'must be "*", "." or a namespace'


GatewayName = Annotated[str, Strict(), _rule(_gateway)]
Visibility = Annotated[str, Strict(), _rule(_visibility)]


def _regex(text: str) -> str | None:
    try:
        re2.check(text)
    except re2.PatternError as error:
        return f"must be a regular expression of RE2's syntax: {error}"
    return None


def shortened(text: str, length: int = 80) -> str:
    """What of a user's text is shown in a message."""
    return text if len(text) <= length else f"{text[: length - 1]}…"


Regex = Annotated[str, Strict(), _rule(_regex)]

_TCHAR = re.compile(r"[!#$%&'*+\-.^_`|~A-Za-z0-9]+", re.ASCII)
_PSEUDO = frozenset({":method", ":scheme", ":authority", ":path", ":status"})
_CLAIM = "@request.auth.claims"
_FORMAT = re.compile(r"(?:[^%]|%%|%[A-Z][A-Z0-9_]*(?:\([^)]*\))?(?::[0-9]+)?%)*", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


def is_header_name(text: str) -> bool:
    """A token of RFC 9110 section 5.1."""
    return _TCHAR.fullmatch(text) is not None


def is_claim(text: str) -> bool:
    """Istio's way to match a claim of a verified token where a header's name is expected."""
    return text.startswith(_CLAIM)


def _matched_header(text: str) -> str | None:
    known = text in _PSEUDO or is_claim(text) or is_header_name(text)
    return None if known else "must be a header's name"


def _header_value(text: str) -> str | None:
    if _CONTROL.search(text):
        return "must not hold control characters"
    if not _FORMAT.fullmatch(text):
        return "must hold % only as %% or as a command such as %REQ(x-user)%"
    return None


MatchedHeader = Annotated[str, Strict(), _rule(_matched_header)]
HeaderValue = Annotated[str, Strict(), _rule(_header_value)]


def _label_text(text: str) -> str:
    return text


def _check_labels(pairs: Labels) -> Labels:
    for key, value in pairs:
        broken = names.label_rule(key, value)
        if broken:
            raise ValueError(broken)
    return pairs


def _check_selector(pairs: Labels) -> Labels:
    for key, value in pairs:
        if not key:
            raise ValueError("must not have an empty key")
        if "*" in key or "*" in value:
            raise ValueError(f"has {key}: {value}; wildcards are not allowed in a selector")
    return _check_labels(pairs)


LabelMap = Annotated[FrozenMap[Text, Text], AfterValidator(_check_labels)]
"""Labels, as :data:`retia.model.mesh.Labels`."""
SelectorMap = Annotated[FrozenMap[Text, Text], AfterValidator(_check_selector)]


def _decode(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("must be base64") from error


def _encode(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")


Base64 = Annotated[bytes, BeforeValidator(_decode), PlainSerializer(_encode)]


def _as_json(value: Any) -> Any:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


Unread = Annotated[str, BeforeValidator(_as_json)]
"""What is not applied, and so not looked into: kept as text, so that it can be shown."""


class Percent(Model):
    """A share in percent: 0, or 0.0001 to 100 (Envoy counts in millionths)."""

    value: Percentage = 0.0

    def problems(self) -> Iterator[Problem]:
        if 0 < self.value < 0.0001:
            yield Problem(("value",), f"is {self.value:g}; it must be 0, or 0.0001 or more", Code.BAD_VALUE)


class PortSelector(Model):
    """A port of the destination, by number."""

    number: Port


class StringMatch(Model):
    """How a text is compared: all of it, its start, or all of it by a regular expression. Empty: present."""

    exact: Text | None = None
    prefix: Text | None = None
    regex: Text | None = None

    def problems(self) -> Iterator[Problem]:
        yield from one_of(self, "exact", "prefix", "regex")
        # A lone * is Istio's old spelling of "present", allowed where headers are matched.
        if self.regex is not None and self.regex != "*" and (broken := _regex(self.regex)):
            yield Problem(("regex",), f"is {shortened(self.regex)!r}; it {broken}", Code.BAD_VALUE)

    @property
    def is_present(self) -> bool:
        """Whether any value will do."""
        return self.regex == "*" or (self.exact is None and self.prefix is None and self.regex is None)


def duplicates(items: Iterable[Any]) -> Iterator[tuple[int, Any]]:
    """Indexes and values of the items that were there before."""
    seen = set()
    for index, item in enumerate(items):
        if item in seen:
            yield index, item
        seen.add(item)


def export_problems(export_to: tuple[str, ...], *, hidden: bool = False) -> Iterator[Problem]:
    """The rules of ``exportTo``; ``hidden``: ``~`` (nobody) is allowed."""
    for index, item in duplicates(export_to):
        yield Problem(("exportTo", index), f"is {item}, which is there already")
    if len(export_to) > 1:
        for index, item in enumerate(export_to):
            if item in ("*", "~"):
                yield Problem(("exportTo", index), f"is {item}, which must stand alone")
    if not hidden and "~" in export_to:
        yield Problem(
            ("exportTo", export_to.index("~")), "is ~, which only a ServiceEntry may say", Code.BAD_VALUE
        )
