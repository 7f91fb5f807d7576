"""The filters of HTTPRoute and GRPCRoute."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated

from pydantic import Field, Strict

from retia.config.codes import Code
from retia.config.schema.base import Model, Problem, camel
from retia.config.schema.gateway_api.types import (
    BackendObjectReference,
    HeaderName,
    LocalObjectReference,
    PreciseHostname,
    count_problems,
    named_once,
    pattern,
)
from retia.config.schema.types import Flag, Port, Text, duplicates

Count = Annotated[int, Strict(), Field(ge=0, le=2**31 - 1)]
PathText = Annotated[str, Strict(), Field(max_length=1024)]


class Header(Model):
    name: HeaderName
    value: Annotated[str, Strict(), Field(min_length=1, max_length=4096)]


class HeaderModifier(Model):
    """``set`` overwrites, ``add`` appends to what is there."""

    set: tuple[Header, ...] = ()
    add: tuple[Header, ...] = ()
    remove: tuple[Text, ...] = ()

    def problems(self) -> Iterator[Problem]:
        for field in ("set", "add", "remove"):
            yield from count_problems(field, getattr(self, field), 16)
        yield from named_once("set", self.set, str.lower)
        yield from named_once("add", self.add, str.lower)
        for index, name in duplicates(name.lower() for name in self.remove):
            yield Problem(("remove", index), f"is {name}, which is there already")


class PathModifierType(StrEnum):
    FULL = "ReplaceFullPath"
    PREFIX = "ReplacePrefixMatch"


class PathModifier(Model):
    type: PathModifierType
    replace_full_path: PathText | None = None
    replace_prefix_match: PathText | None = None

    def problems(self) -> Iterator[Problem]:
        full = self.type is PathModifierType.FULL
        mine, other = "replace_full_path", "replace_prefix_match"
        if not full:
            mine, other = other, mine
        if getattr(self, mine) is None:
            yield Problem((camel(mine),), f"is missing; type {self.type.value} needs it", Code.MISSING_FIELD)
        if getattr(self, other) is not None:
            yield Problem((camel(other),), f"must not be given where type is {self.type.value}")


class RequestRedirect(Model):
    scheme: Text | None = None
    hostname: PreciseHostname | None = None
    """Absent: the request's."""
    path: PathModifier | None = None
    port: Port | None = None
    """Absent: the scheme's own where a scheme is given, otherwise the listener's."""
    status_code: Annotated[int, Strict()] = 302

    def problems(self) -> Iterator[Problem]:
        if self.scheme not in (None, "http", "https"):
            yield Problem(("scheme",), f"is {self.scheme}; it must be one of http, https", Code.BAD_VALUE)
        if self.status_code not in (301, 302, 303, 307, 308):
            message = f"is {self.status_code}; it must be one of 301, 302, 303, 307, 308"
            yield Problem(("statusCode",), message, Code.BAD_VALUE)


class URLRewrite(Model):
    hostname: PreciseHostname | None = None
    path: PathModifier | None = None


class Fraction(Model):
    numerator: Count
    denominator: Annotated[int, Strict(), Field(ge=1, le=2**31 - 1)] = 100

    def problems(self) -> Iterator[Problem]:
        if self.numerator > self.denominator:
            yield Problem(("numerator",), "must not be larger than the denominator", Code.BAD_VALUE)


class RequestMirror(Model):
    backend_ref: BackendObjectReference
    percent: Annotated[int, Strict(), Field(ge=0, le=100)] | None = None
    fraction: Fraction | None = None
    """Neither: all requests."""

    def problems(self) -> Iterator[Problem]:
        if self.percent is not None and self.fraction is not None:
            yield Problem(("fraction",), "must not stand beside percent: both say the share")


Origin = Annotated[
    str,
    Strict(),
    pattern(
        r"\*|https?://(((\*\.)?([a-zA-Z0-9\-]+\.)*[a-zA-Z0-9-]+|\*)(:([0-9]{1,5}))?)",
        "must be *, or scheme, host and possibly port, such as https://*.example.com:8443",
    ),
]
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH")


class CORS(Model):
    allow_origins: tuple[Origin, ...] = ()
    allow_credentials: Flag | None = None
    allow_methods: tuple[Text, ...] = ()
    allow_headers: tuple[HeaderName, ...] = ()
    expose_headers: tuple[HeaderName, ...] = ()
    max_age: Annotated[int, Strict(), Field(ge=1, le=2**31 - 1)] = 5
    """Seconds for which a browser may remember the answer."""

    def problems(self) -> Iterator[Problem]:
        for index, method in enumerate(self.allow_methods):
            if method not in (*METHODS, "*"):
                message = f"is {method}; it must be * or one of {', '.join(METHODS)}"
                yield Problem(("allowMethods", index), message, Code.BAD_VALUE)
        for field in ("allow_origins", "allow_methods", "allow_headers"):
            values = getattr(self, field)
            if "*" in values and len(values) > 1:
                yield Problem((camel(field),), "must not have * beside others")
            for index, value in duplicates(values):
                yield Problem((camel(field), index), f"is {value}, which is there already")


class ExternalAuthGRPC(Model):
    allowed_headers: tuple[Text, ...] = ()


class ExternalAuthHTTP(Model):
    path: PathText = ""
    allowed_headers: tuple[Text, ...] = ()
    allowed_response_headers: tuple[Text, ...] = ()


class ForwardBody(Model):
    max_size: Count = 0


class ExternalAuth(Model):
    protocol: Text
    backend_ref: BackendObjectReference
    grpc: ExternalAuthGRPC | None = None
    http: ExternalAuthHTTP | None = None
    forward_body: ForwardBody | None = None

    def problems(self) -> Iterator[Problem]:
        if self.protocol not in ("HTTP", "GRPC"):
            yield Problem(("protocol",), f"is {self.protocol}; it must be one of HTTP, GRPC", Code.BAD_VALUE)


class FilterType(StrEnum):
    REQUEST_HEADERS = "RequestHeaderModifier"
    RESPONSE_HEADERS = "ResponseHeaderModifier"
    MIRROR = "RequestMirror"
    REDIRECT = "RequestRedirect"
    REWRITE = "URLRewrite"
    CORS = "CORS"
    EXTERNAL_AUTH = "ExternalAuth"
    EXTENSION = "ExtensionRef"


_FIELD = {
    FilterType.REQUEST_HEADERS: "request_header_modifier",
    FilterType.RESPONSE_HEADERS: "response_header_modifier",
    FilterType.MIRROR: "request_mirror",
    FilterType.REDIRECT: "request_redirect",
    FilterType.REWRITE: "url_rewrite",
    FilterType.CORS: "cors",
    FilterType.EXTERNAL_AUTH: "external_auth",
    FilterType.EXTENSION: "extension_ref",
}
_SEVERAL = (FilterType.MIRROR, FilterType.EXTENSION)
"""Filters that a rule may have more than once."""


class HTTPFilter(Model):
    type: FilterType
    request_header_modifier: HeaderModifier | None = None
    response_header_modifier: HeaderModifier | None = None
    request_mirror: RequestMirror | None = None
    request_redirect: RequestRedirect | None = None
    url_rewrite: URLRewrite | None = None
    cors: CORS | None = None
    external_auth: ExternalAuth | None = None
    extension_ref: LocalObjectReference | None = None

    def problems(self) -> Iterator[Problem]:
        yield from _union(self, self.type)


class GRPCFilter(Model):
    type: FilterType
    request_header_modifier: HeaderModifier | None = None
    response_header_modifier: HeaderModifier | None = None
    request_mirror: RequestMirror | None = None
    extension_ref: LocalObjectReference | None = None

    def problems(self) -> Iterator[Problem]:
        if _FIELD[self.type] not in type(self).model_fields:
            yield Problem(("type",), f"is {self.type.value}, which a GRPCRoute does not have", Code.BAD_VALUE)
        else:
            yield from _union(self, self.type)


def _union(model: Model, kind: FilterType) -> Iterator[Problem]:
    mine = _FIELD[kind]
    for field in _FIELD.values():
        given = getattr(model, field, None) is not None
        if given and field != mine:
            yield Problem((camel(field),), f"must not be given where type is {kind.value}")
        elif not given and field == mine:
            yield Problem((camel(field),), f"is missing; type {kind.value} needs it", Code.MISSING_FIELD)


def filter_problems(filters: tuple[HTTPFilter, ...] | tuple[GRPCFilter, ...]) -> Iterator[Problem]:
    """The rules between the filters of one rule or backend."""
    yield from count_problems("filters", filters, 16)
    kinds = Counter(each.type for each in filters)
    for kind, count in sorted(kinds.items()):
        if count > 1 and kind not in _SEVERAL:
            yield Problem(("filters",), f"has {kind.value} {count} times; it may be there once")
    if kinds[FilterType.REDIRECT] and kinds[FilterType.REWRITE]:
        yield Problem(("filters",), "has RequestRedirect and URLRewrite, which exclude one another")


def prefix_modifiers(filters: tuple[HTTPFilter, ...]) -> Iterator[int]:
    """The indexes of filters that replace the matched prefix."""
    for index, each in enumerate(filters):
        for action in (each.request_redirect, each.url_rewrite):
            path = action.path if action is not None else None
            if path is not None and path.type is PathModifierType.PREFIX:
                yield index
