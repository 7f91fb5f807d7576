"""BackendTLSPolicy: with which TLS a client speaks to a service's port.

The oldest policy for the port's name holds, else the oldest for the whole service. One whose authorities are
all unusable lets nothing through: connections trust nobody.
"""

from __future__ import annotations

from dataclasses import dataclass

from retia.config.schema.gateway_api.backend_tls_policy import SubjectAltNameType
from retia.model.objects import ConfigObject
from retia.model.resource import Provenance
from retia.model.snapshot import View
from retia.policy.gateway_api.listeners import Reason, authority
from retia.policy.indexes import objects
from retia.policy.registry import service

TARGETS = ("Service", "ServiceEntry")
"""What a policy may be for; the latter as in Istio."""


@dataclass(frozen=True, slots=True)
class BackendTls:
    """TLS to a backend."""

    sni: str
    authorities: bytes = b""
    """PEM; empty with ``system`` false: nobody is trusted, so that no connection comes about."""
    system: bool = False
    """The authorities that the host trusts."""
    dns_names: tuple[str, ...] = ()
    """The certificate must be for one of these ..."""
    uris: tuple[str, ...] = ()
    """... or of these."""
    provenance: tuple[Provenance, ...] = ()


def backend_tls(view: View, key: tuple[str, int]) -> BackendTls | None:
    """What holds for ``(host, port)``; ``None``: no policy is for it."""
    host, port = key
    known = service(view, host)
    if known is None or host.startswith("*"):
        return None
    found = objects(view, "backend-tls", f"{known.namespace}/{known.name}")
    if not found:
        return None
    served = known.port(port)
    chosen = choose(found, known.name, served.name if served is not None else "")
    return read(view, chosen) if chosen is not None else None


def choose(policies: tuple[ConfigObject, ...], name: str, section: str) -> ConfigObject | None:
    """The policy for one port of a Service: the oldest for its name, else the oldest for all."""
    for wanted in (section or None, None):
        for policy in policies:
            for ref in policy.spec.target_refs:
                if ref.kind in TARGETS and ref.name == name and ref.section_name == wanted:
                    return policy
    return None


def read(view: View, policy: ConfigObject) -> BackendTls:
    validation = policy.spec.validation
    texts, _ = authorities(view, policy)
    names = tuple(
        each.hostname for each in validation.subject_alt_names if each.type is SubjectAltNameType.HOSTNAME
    )
    uris = tuple(each.uri for each in validation.subject_alt_names if each.type is SubjectAltNameType.URI)
    return BackendTls(
        sni=validation.hostname,
        authorities="\n".join(texts).encode(),
        system=validation.well_known_ca_certificates == "System",
        dns_names=names if names or uris else (validation.hostname,),
        uris=uris,
        provenance=(Provenance(policy.ref, "spec"),),
    )


def authorities(view: View, policy: ConfigObject) -> tuple[tuple[str, ...], tuple[Reason, ...]]:
    """The certificates of a policy's authorities, and what is wrong with references to others."""
    texts: list[str] = []
    wrong: list[Reason] = []
    for ref in policy.spec.validation.ca_certificate_refs:
        found = authority(view, policy.ref, ref, policy.ref.namespace)
        if isinstance(found, Reason):
            wrong.append(found)
        else:
            texts.append(found)
    return tuple(texts), tuple(wrong)
