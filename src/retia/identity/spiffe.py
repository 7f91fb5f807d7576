"""SPIFFE names: parse, build, validate.

Three kinds of party have a name in a trust domain::

    spiffe://<trust domain>/ns/<namespace>/sa/<account>     a workload (Istio's form)
    spiffe://<trust domain>/retia/host/<host id>            a host's agent
    spiffe://<trust domain>/retia/controller                a controller

The rules for characters and lengths are those of the SPIFFE ID specification, sections 2.1 to 2.4 (trust
domain in lower case; no port, user, query, fragment, percent encoding, empty or dot segment). Namespaces and
accounts also keep Kubernetes' rules, so that the same name is valid everywhere. A name is parsed once, at the
edge; names are compared as exact strings.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, NewType

from retia.model.ids import HostId, Namespace, SpiffeId

TrustDomain = NewType("TrustDomain", str)
"""A validated trust domain, for example ``cluster.local``; see :func:`parse_trust_domain`."""

SCHEME: Final = "spiffe://"
MAX_ID_BYTES: Final = 2048
MAX_TRUST_DOMAIN_BYTES: Final = 255

_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]+", re.ASCII)
_SEGMENT = re.compile(r"[A-Za-z0-9._-]+", re.ASCII)
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_SUBDOMAIN = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", re.ASCII)


class IdentityError(ValueError):
    """A name that is no valid identity; the message says which part breaks which rule."""


@dataclass(frozen=True, slots=True)
class WorkloadIdentity:
    """What a workload is known as: all instances with the same service account share it."""

    trust_domain: TrustDomain
    namespace: Namespace
    service_account: str

    @property
    def uri(self) -> SpiffeId:
        return SpiffeId(f"{SCHEME}{self.trust_domain}/ns/{self.namespace}/sa/{self.service_account}")

    def __str__(self) -> str:
        return self.uri


@dataclass(frozen=True, slots=True)
class HostIdentity:
    """What a host's agent is known as."""

    trust_domain: TrustDomain
    host: HostId

    @property
    def uri(self) -> SpiffeId:
        return SpiffeId(f"{SCHEME}{self.trust_domain}/retia/host/{self.host}")

    def __str__(self) -> str:
        return self.uri


@dataclass(frozen=True, slots=True)
class ControllerIdentity:
    """What every controller of a trust domain is known as."""

    trust_domain: TrustDomain

    @property
    def uri(self) -> SpiffeId:
        return SpiffeId(f"{SCHEME}{self.trust_domain}/retia/controller")

    def __str__(self) -> str:
        return self.uri


Identity = WorkloadIdentity | HostIdentity | ControllerIdentity


def parse_trust_domain(text: str) -> TrustDomain:
    """``text`` as a trust domain; raises :class:`IdentityError`."""
    if not text:
        raise IdentityError("the trust domain is empty; write for example cluster.local")
    if len(text) > MAX_TRUST_DOMAIN_BYTES:
        raise IdentityError(f"the trust domain has {len(text)} characters; at most {MAX_TRUST_DOMAIN_BYTES}")
    if not _TRUST_DOMAIN.fullmatch(text):
        raise IdentityError(
            f"trust domain {text!r}: only lower-case letters, digits, '.', '-' and '_' are allowed"
        )
    return TrustDomain(text)


def parse_namespace(text: str) -> Namespace:
    """``text`` as a namespace (a DNS label); raises :class:`IdentityError`."""
    if not _LABEL.fullmatch(text):
        raise IdentityError(
            f"namespace {text!r}: a DNS label is needed (1 to 63 of a-z, 0-9 and '-', no '-' at either end)"
        )
    return Namespace(text)


def parse_service_account(text: str) -> str:
    """``text`` as the name of a service account (a DNS subdomain); raises :class:`IdentityError`."""
    if not _SUBDOMAIN.fullmatch(text) or ".." in text:
        raise IdentityError(
            f"service account {text!r}: 1 to 253 of a-z, 0-9, '-' and '.', a-z or 0-9 at both ends"
        )
    return text


def parse_host_id(text: str) -> HostId:
    """``text`` as a host's id (one path segment, at most 253 characters); raises :class:`IdentityError`."""
    if len(text) > 253 or not _SEGMENT.fullmatch(text) or text in (".", ".."):
        raise IdentityError(f"host id {text!r}: 1 to 253 letters, digits, '.', '-' and '_' are needed")
    return HostId(text)


def workload_identity(trust_domain: str, namespace: str, service_account: str) -> WorkloadIdentity:
    """The identity of a workload, every part validated; raises :class:`IdentityError`."""
    return WorkloadIdentity(
        parse_trust_domain(trust_domain), parse_namespace(namespace), parse_service_account(service_account)
    )


def host_identity(trust_domain: str, host: str) -> HostIdentity:
    """The identity of a host's agent, every part validated; raises :class:`IdentityError`."""
    return HostIdentity(parse_trust_domain(trust_domain), parse_host_id(host))


def controller_identity(trust_domain: str) -> ControllerIdentity:
    """The identity of a controller; raises :class:`IdentityError`."""
    return ControllerIdentity(parse_trust_domain(trust_domain))


def parse_identity(uri: str) -> Identity:
    """What ``uri`` names; raises :class:`IdentityError` for anything but the three forms above."""
    if len(uri.encode(errors="surrogatepass")) > MAX_ID_BYTES:
        raise IdentityError(f"the identity is longer than {MAX_ID_BYTES} bytes")
    if not uri.startswith(SCHEME):
        raise IdentityError(f"identity {uri!r}: it must begin with {SCHEME}")
    domain, *path = uri[len(SCHEME) :].split("/")
    trust_domain = parse_trust_domain(domain)
    match path:
        case ["ns", namespace, "sa", account]:
            return WorkloadIdentity(trust_domain, parse_namespace(namespace), parse_service_account(account))
        case ["retia", "host", host]:
            return HostIdentity(trust_domain, parse_host_id(host))
        case ["retia", "controller"]:
            return ControllerIdentity(trust_domain)
    raise IdentityError(
        f"identity {uri!r}: the path must be /ns/<namespace>/sa/<account>, /retia/host/<host> or "
        "/retia/controller"
    )
