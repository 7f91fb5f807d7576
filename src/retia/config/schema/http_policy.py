"""``HttpPolicy``: what is done to requests and responses on the way. retia.dev."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated

from pydantic import Field, Strict

from retia.config.codes import Code
from retia.config.schema.base import Model, Problem
from retia.config.schema.policy_target import PolicyTargets
from retia.config.schema.request_match import length
from retia.config.schema.types import Base64, Flag, PositiveDuration, Text, duplicates

BodyBytes = Annotated[int, Strict(), Field(ge=1, le=2**30)]
ContentLength = Annotated[int, Strict(), Field(ge=30, le=2**30)]


class Algorithm(StrEnum):
    GZIP = "Gzip"
    BROTLI = "Brotli"
    ZSTD = "Zstd"


class Compression(Model):
    """Compress responses for clients that accept it (``accept-encoding``)."""

    algorithms: Annotated[tuple[Algorithm, ...], length(1, 3)] = (Algorithm.GZIP,)
    """The first that the client accepts best; ties go by this order."""
    min_bytes: ContentLength = 1024
    """Shorter responses are left alone; at least 30."""
    content_types: tuple[Text, ...] = ()
    """Absent: Envoy's list of texts (JSON, HTML, CSS, JavaScript, SVG, XML, plain text)."""

    def problems(self) -> Iterator[Problem]:
        for index, algorithm in duplicates(self.algorithms):
            yield Problem(("algorithms", index), f"is {algorithm}, which is there already")


class Transcoding(Model):
    """Let clients that speak JSON over HTTP call a gRPC service, as its ``google.api.http`` options say."""

    descriptor: Base64
    """What ``protoc --include_imports --descriptor_set_out`` writes, in base64."""
    services: Annotated[tuple[Text, ...], length(1, 64)]
    """Full names, such as ``shop.v1.Orders``; others are passed on as they come."""
    auto_mapping: Flag = False
    """Methods without options get ``POST /<package>.<service>/<method>``."""
    ignore_unknown_parameters: Flag = False
    """Ignore query parameters that the message has no field for; else they are refused."""
    print_defaults: Flag = False
    """Write fields that have their default value."""

    def problems(self) -> Iterator[Problem]:
        if not self.descriptor:
            yield Problem(("descriptor",), "must not be empty", Code.MISSING_FIELD)


class Cache(Model):
    """Keep responses. Accepted and refused: see the reference."""

    max_bytes: BodyBytes = 1 << 24
    max_age: PositiveDuration | None = None


class HttpPolicy(PolicyTargets):
    """For services, workloads and gateways. Of several for one place, the oldest decides each part."""

    compression: Compression | None = None
    max_request_bytes: BodyBytes | None = None
    """Longer request bodies get 413. Requests are held until they are complete, so this is not for
    streams (gRPC streaming, WebSocket, uploads without an end). Absent: no limit."""
    transcoding: Transcoding | None = None
    """For services, workloads and gateways in front of gRPC."""
    cache: Cache | None = None

    def problems(self) -> Iterator[Problem]:
        yield from super().problems()
        yield from self.no_routes()
        parts = ("compression", "max_request_bytes", "transcoding", "cache")
        if all(getattr(self, part) is None for part in parts):
            message = "must have one of compression, maxRequestBytes, transcoding"
            yield Problem((), message, Code.MISSING_FIELD)
