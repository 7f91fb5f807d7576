"""``BackendTLSPolicy``: TLS to a backend, and what its certificate must say."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from retia.config.codes import Code
from retia.config.schema.base import Model, Problem
from retia.config.schema.gateway_api.types import (
    Hostname,
    LocalObjectReference,
    LocalPolicyTarget,
    NotEmpty,
    Options,
    PreciseHostname,
    count_problems,
    pattern,
)
from retia.config.schema.types import Text, duplicates

AbsoluteURI = Annotated[
    str,
    pattern(r"(([^:/?#]+):)(//([^/?#]*))([^?#]*)(\?([^#]*))?(#(.*))?", "must be an absolute URI"),
]


class SubjectAltNameType(StrEnum):
    HOSTNAME = "Hostname"
    URI = "URI"


class SubjectAltName(Model):
    type: SubjectAltNameType
    hostname: Hostname | None = None
    uri: AbsoluteURI | None = None

    def problems(self) -> Iterator[Problem]:
        is_host = self.type is SubjectAltNameType.HOSTNAME
        for field, value, wanted in (("hostname", self.hostname, is_host), ("uri", self.uri, not is_host)):
            if wanted and value is None:
                yield Problem((field,), f"is missing; type {self.type.value} needs it", Code.MISSING_FIELD)
            if not wanted and value is not None:
                yield Problem((field,), f"must not be given where type is {self.type.value}")


class BackendTLSValidation(Model):
    ca_certificate_refs: tuple[LocalObjectReference, ...] = ()
    """ConfigMaps of the policy's namespace with the key ``ca.crt``."""
    well_known_ca_certificates: Annotated[Text | None, Field(alias="wellKnownCACertificates")] = None
    """``System``: the authorities that the host trusts."""
    hostname: PreciseHostname
    """The server name that is sent; without ``subjectAltNames`` the certificate must be for it."""
    subject_alt_names: tuple[SubjectAltName, ...] = ()
    """One of them must be in the certificate, which then need not be for ``hostname``."""

    def problems(self) -> Iterator[Problem]:
        yield from count_problems("caCertificateRefs", self.ca_certificate_refs, 8)
        yield from count_problems("subjectAltNames", self.subject_alt_names, 5)
        if self.ca_certificate_refs and self.well_known_ca_certificates:
            yield Problem(("wellKnownCACertificates",), "must not stand beside caCertificateRefs")
        if not self.ca_certificate_refs and not self.well_known_ca_certificates:
            message = "must have one of caCertificateRefs, wellKnownCACertificates"
            yield Problem((), message, Code.MISSING_FIELD)


class BackendTLSPolicy(Model):
    """TLS to backends, and what their certificates must say."""

    target_refs: Annotated[tuple[LocalPolicyTarget, ...], NotEmpty]
    validation: BackendTLSValidation
    options: Options = ()

    def problems(self) -> Iterator[Problem]:
        yield from count_problems("targetRefs", self.target_refs, 16)
        for index, _ in duplicates(self.target_refs):
            yield Problem(("targetRefs", index), "is there already; name another sectionName")
        whole: dict[tuple[str, str, str], bool] = {}
        for index, ref in enumerate(self.target_refs):
            named = bool(ref.section_name)
            if whole.setdefault((ref.group, ref.kind, ref.name), named) is not named:
                message = "names the same target as another item: both or neither must have a sectionName"
                yield Problem(("targetRefs", index), message)
