"""Kubernetes ``Secret``: certificates with their keys, and authorities, for gateways and clients' TLS.

Values never leave a model by accident: they are bytes of a type that prints as ``[redacted]``.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from retia.config.codes import Code
from retia.config.schema.base import FrozenMap, Model, Problem
from retia.config.schema.types import Flag, Text

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


class _Reads:
    """Reads a value by a function whose errors don't tell the value."""

    def __init__(self, read: Callable[[Any], Private]) -> None:
        self._read = read

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self._read, serialization=core_schema.plain_serializer_function_ser_schema(lambda _: REDACTED)
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> Any:
        return {"type": "string"}


def _from_text(value: Any) -> Private:
    if isinstance(value, Private):
        return value
    if not isinstance(value, str):
        raise ValueError("is no text; put it in quotes")
    if value == REDACTED:
        raise ValueError("is what is shown in place of a secret value; give the value itself")
    return Private(value.encode())


def _from_base64(value: Any) -> Private:
    text = _from_text(value)
    try:
        return text if text is value else Private(base64.b64decode(text.reveal(), validate=True))
    except (binascii.Error, ValueError):
        raise ValueError("is not base64, as values in data are; use stringData for text") from None


def _mapping(value: Any) -> Any:
    if not isinstance(value, Mapping | tuple):
        raise ValueError("is no mapping of names to values")
    return value


PrivateBase64 = Annotated[Private, _Reads(_from_base64)]
PrivateText = Annotated[Private, _Reads(_from_text)]


class Secret(Model):
    """Certificates with their keys (``tls.crt`` and ``tls.key``, or ``cert`` and ``key``) and authorities
    (``ca.crt``, or ``cacert``), as PEM. Given to the proxies that an object with ``credentialName`` is for;
    its values are never shown."""

    type: Text = "Opaque"
    data: Annotated[FrozenMap[Text, PrivateBase64], BeforeValidator(_mapping)] = ()
    """Values in base64."""
    string_data: Annotated[FrozenMap[Text, PrivateText], BeforeValidator(_mapping)] = ()
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


def redacted(document: Mapping[str, Any]) -> dict[str, Any]:
    """A user's document as it may be shown: of a ``Secret`` no value, nor a copy of it in an annotation."""
    shown = dict(document)
    if document.get("kind") != "Secret":  # of whatever version it says that it is
        return shown
    for key in ("data", "stringData"):
        values = document.get(key)
        if values is not None:
            shown[key] = dict.fromkeys(values, REDACTED) if isinstance(values, Mapping) else REDACTED
    metadata = document.get("metadata")
    if isinstance(metadata, Mapping) and isinstance(metadata.get("annotations"), Mapping):
        kept = {k: v for k, v in metadata["annotations"].items() if k != _LAST_APPLIED}
        shown["metadata"] = {**metadata, "annotations": kept}
    return shown


_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
"""Where kubectl keeps the whole document."""
