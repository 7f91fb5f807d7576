"""Kubernetes ``Secret``: certificates with their keys, and authorities, for gateways and clients' TLS.

Values never leave a model by accident: they are bytes of a type that prints as ``[redacted]``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from retia.config.codes import Code
from retia.config.schema.base import FrozenMap, Model, Problem
from retia.config.schema.types import Base64, Flag, Text

TLS_TYPE = "kubernetes.io/tls"
REDACTED = "[redacted]"

CERTIFICATE_KEYS = ("tls.crt", "cert")
PRIVATE_KEYS = ("tls.key", "key")
AUTHORITY_KEYS = ("ca.crt", "cacert")
CRL_KEYS = ("ca.crl", "crl")
AUTHORITY_SUFFIX = "-cacert"
"""``<name>-cacert`` holds the authority that belongs to the certificate in ``<name>``: Istio's rule."""


class Private:
    """Bytes that print as ``[redacted]``."""

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value = value

    def reveal(self) -> bytes:
        return self._value

    def __repr__(self) -> str:
        return REDACTED

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Private) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)


class _FromBase64:
    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(
            _private,
            handler.generate_schema(Base64),
            serialization=core_schema.plain_serializer_function_ser_schema(lambda _: REDACTED),
        )


class _FromText:
    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(
            _private,
            handler.generate_schema(Text),
            serialization=core_schema.plain_serializer_function_ser_schema(lambda _: REDACTED),
        )


def _private(value: bytes | str) -> Private:
    return Private(value.encode() if isinstance(value, str) else value)


PrivateBase64 = Annotated[Private, _FromBase64]
PrivateText = Annotated[Private, _FromText]


class Secret(Model):
    type: Text = "Opaque"
    data: FrozenMap[Text, PrivateBase64] = ()
    """Values in base64."""
    string_data: FrozenMap[Text, PrivateText] = ()
    """Values as they are; they outweigh ``data``."""
    immutable: Flag = False

    def problems(self) -> Iterator[Problem]:
        if self.type == TLS_TYPE:
            for key in ("tls.crt", "tls.key"):
                if self.value(key) is None:
                    message = f"must have {key}; type {TLS_TYPE} needs it"
                    yield Problem(("data",), message, Code.MISSING_FIELD)

    def value(self, *keys: str) -> Private | None:
        """The value of the first of ``keys`` that there is; an empty value counts as none."""
        found = {**dict(self.data), **dict(self.string_data)}
        return next((found[key] for key in keys if key in found and found[key].reveal()), None)
