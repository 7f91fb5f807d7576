"""What an HTTP rule does with a request besides routing it: redirect, rewrite, answer, retry, inject faults,
mirror, cross-origin rules."""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import StrEnum
from http import HTTPStatus

from retia.config import re2
from retia.config.codes import Code
from retia.config.schema.base import Model, Problem, one_of
from retia.config.schema.types import (
    Base64,
    Count,
    DestinationHost,
    DnsLabel,
    Flag,
    HttpStatus,
    Percent,
    Port,
    PortSelector,
    PositiveDuration,
    Regex,
    StringMatch,
    Text,
    WholePercent,
    is_header_name,
)

MAX_BODY_BYTES = 1024 * 1024
"""Istio's limit for the body of a direct response."""

RETRY_ON = frozenset(
    {
        "5xx",
        "gateway-error",
        "reset",
        "reset-before-request",
        "connect-failure",
        "retriable-4xx",
        "refused-stream",
        "retriable-status-codes",
        "retriable-headers",
        "envoy-ratelimited",
        "http3-post-connect-failure",
        "cancelled",
        "deadline-exceeded",
        "internal",
        "resource-exhausted",
        "unavailable",
    }
)
"""Envoy's retry policies, HTTP and gRPC (x-envoy-retry-on, x-envoy-retry-grpc-on)."""

GRPC_STATUS = (
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
)
"""gRPC's status names; the index is the number."""

_STATUS_CODES = frozenset(status.value for status in HTTPStatus)
CORS_METHODS = frozenset(
    {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE", "*"}
)


class Destination(Model):
    """Where requests go: a service of the registry, a subset of it, one of its ports."""

    host: DestinationHost
    """A name with no dot is a service of the rule's own namespace."""
    subset: DnsLabel | None = None
    port: PortSelector | None = None
    """Needed where the service has several ports."""


class RedirectPortSelection(StrEnum):
    FROM_PROTOCOL_DEFAULT = "FROM_PROTOCOL_DEFAULT"
    FROM_REQUEST_PORT = "FROM_REQUEST_PORT"


class HTTPRedirect(Model):
    """The answer sends the client elsewhere."""

    uri: Text | None = None
    """The whole new path."""
    authority: Text | None = None
    port: Port | None = None
    derive_port: RedirectPortSelection | None = None
    scheme: Text | None = None
    redirect_code: int = 0
    """0: 301."""
    prefix_rewrite: Text | None = None
    """Takes the place of the matched prefix."""

    def problems(self) -> Iterator[Problem]:
        yield from one_of(self, "uri", "prefix_rewrite")
        yield from one_of(self, "port", "derive_port")
        fields = (self.uri, self.prefix_rewrite, self.authority, self.port, self.derive_port, self.scheme)
        if not any(fields):
            yield Problem((), "must have a uri, prefixRewrite, authority, port or scheme", Code.MISSING_FIELD)
        if self.redirect_code and not 300 <= self.redirect_code <= 399:
            yield Problem(
                ("redirectCode",), f"is {self.redirect_code}; it must be 300 to 399", Code.BAD_VALUE
            )
        if self.scheme not in (None, "", "http", "https"):
            yield Problem(("scheme",), f"is {self.scheme}; it must be http or https", Code.BAD_VALUE)


Content = bytes
"""``bytes`` by a name that the field of :class:`HTTPBody` does not hide."""


class HTTPBody(Model):
    """The body of an answer: text, or bytes in base64."""

    string: Text | None = None
    bytes: Base64 | None = None

    def problems(self) -> Iterator[Problem]:
        yield from one_of(self, "string", "bytes")
        if len(self.content) > MAX_BODY_BYTES:
            yield Problem((), f"has {len(self.content)} bytes; at most 1 MiB is allowed", Code.BAD_VALUE)

    @property
    def content(self) -> Content:
        return (self.string or "").encode("utf-8", "replace") if self.bytes is None else self.bytes


class HTTPDirectResponse(Model):
    """A fixed answer; no request is sent on."""

    status: HttpStatus
    body: HTTPBody | None = None


class RegexRewrite(Model):
    """``match`` found in the path becomes ``rewrite``, where ``\\1`` is the first group."""

    match: Regex
    rewrite: Text

    def problems(self) -> Iterator[Problem]:
        if not self.rewrite:
            yield Problem(("rewrite",), "is empty; it must have at least one character", Code.BAD_VALUE)
        groups = re2.check(self.match)
        highest = max((int(digit) for digit in re.findall(r"\\([0-9])", self.rewrite)), default=0)
        if highest > groups:
            message = f"refers to group {highest}, but match has {groups}"
            yield Problem(("rewrite",), message, Code.BAD_VALUE)


class HTTPRewrite(Model):
    """What the destination sees in place of the request's path and authority."""

    uri: Text | None = None
    """Takes the place of the matched prefix, or of the whole path for other matches."""
    authority: Text | None = None
    uri_regex_rewrite: RegexRewrite | None = None

    def problems(self) -> Iterator[Problem]:
        yield from one_of(self, "uri", "uri_regex_rewrite")
        if not (self.uri or self.authority or self.uri_regex_rewrite):
            yield Problem((), "must have a uri, uriRegexRewrite or authority", Code.MISSING_FIELD)


class HTTPRetry(Model):
    """How often and when a failed request is tried again."""

    attempts: Count = 0
    """Tries beyond the first; 0: none."""
    per_try_timeout: PositiveDuration | None = None
    """Absent: the rule's timeout."""
    retry_on: Text | None = None
    """Envoy's policies and status codes, with commas. Absent: the mesh's default."""
    retry_remote_localities: Flag | None = None
    retry_ignore_previous_hosts: Flag | None = None
    """Absent: true."""
    backoff: PositiveDuration | None = None
    """The shortest pause before a retry; it doubles. Absent: 25ms."""

    def problems(self) -> Iterator[Problem]:
        for name in ("per_try_timeout", "retry_on", "retry_remote_localities"):
            if self.attempts == 0 and getattr(self, name) is not None:
                yield Problem(("attempts",), "is 0, which allows no retry, yet other fields say how to retry")
                break
        for policy in self.policies:
            if policy not in RETRY_ON and not _is_status(policy):
                message = f"has {policy!r}; it must list Envoy's retry policies and status codes"
                yield Problem(("retryOn",), message, Code.BAD_VALUE)

    @property
    def policies(self) -> tuple[str, ...]:
        """The items of ``retry_on``, status codes among them."""
        return tuple(item.strip() for item in self.retry_on.split(",")) if self.retry_on else ()


def _is_status(text: str) -> bool:
    return text.isdecimal() and text.isascii() and int(text) in _STATUS_CODES


class Delay(Model):
    """Requests wait before they are sent on."""

    percent: WholePercent = 0
    fixed_delay: PositiveDuration | None = None
    exponential_delay: PositiveDuration | None = None
    percentage: Percent | None = None
    """Absent: ``percent``, and no request where that is absent too."""

    def problems(self) -> Iterator[Problem]:
        yield from one_of(self, "fixed_delay", "exponential_delay", required=True)


class Abort(Model):
    """Requests are answered with an error."""

    http_status: HttpStatus | None = None
    grpc_status: Text | None = None
    http2_error: Text | None = None
    percentage: Percent | None = None
    """Absent: no request."""

    def problems(self) -> Iterator[Problem]:
        yield from one_of(self, "http_status", "grpc_status", "http2_error", required=True)
        if self.grpc_status is not None and self.grpc_status not in GRPC_STATUS:
            message = f"is {self.grpc_status!r}; it must be the name of a gRPC status, such as NOT_FOUND"
            yield Problem(("grpcStatus",), message, Code.BAD_VALUE)

    @property
    def grpc_code(self) -> int | None:
        """The number of ``grpc_status``."""
        return None if self.grpc_status is None else GRPC_STATUS.index(self.grpc_status)


class HTTPFaultInjection(Model):
    """Faults injected by the caller's proxy."""

    delay: Delay | None = None
    abort: Abort | None = None

    def problems(self) -> Iterator[Problem]:
        if not self.delay and not self.abort:
            yield Problem((), "must have a delay or an abort", Code.MISSING_FIELD)


class HTTPMirrorPolicy(Model):
    """A destination that gets copies; its answers are dropped."""

    destination: Destination
    percentage: Percent | None = None
    """Absent: all requests."""

    @property
    def percent(self) -> float:
        return 100.0 if self.percentage is None else self.percentage.value


class UnmatchedPreflights(StrEnum):
    UNSPECIFIED = "UNSPECIFIED"
    FORWARD = "FORWARD"
    IGNORE = "IGNORE"


class CorsPolicy(Model):
    """Cross-origin resource sharing."""

    allow_origin: tuple[Text, ...] = ()
    allow_origins: tuple[StringMatch, ...] = ()
    allow_methods: tuple[Text, ...] = ()
    allow_headers: tuple[Text, ...] = ()
    expose_headers: tuple[Text, ...] = ()
    max_age: PositiveDuration | None = None
    allow_credentials: Flag | None = None
    unmatched_preflights: UnmatchedPreflights = UnmatchedPreflights.UNSPECIFIED

    def problems(self) -> Iterator[Problem]:
        for index, origin in enumerate(self.allow_origins):
            if origin.is_present or "" in (origin.exact, origin.prefix):
                message = "must have one of exact, prefix, regex, and that not empty"
                yield Problem(("allowOrigins", index), message, Code.MISSING_FIELD)
        for index, method in enumerate(self.allow_methods):
            if method not in CORS_METHODS:
                yield Problem(
                    ("allowMethods", index), f"is {method!r}; it must be an HTTP method", Code.BAD_VALUE
                )
        for field, headers in (("allowHeaders", self.allow_headers), ("exposeHeaders", self.expose_headers)):
            for index, header in enumerate(headers):
                if not is_header_name(header):
                    yield Problem(
                        (field, index), f"is {header!r}; it must be a header's name", Code.BAD_VALUE
                    )
        if self.max_age is not None and self.max_age % 1:
            yield Problem(("maxAge",), f"is {self.max_age}; it must be whole seconds", Code.BAD_VALUE)
