"""Certificates, keys and authorities out of ``Secret`` objects, looked at before a proxy gets them.

A gateway that was told of a certificate without a fitting key would refuse it, and serve the old one or none;
what is wrong is therefore found here, and said of the object that names the secret.
"""

from __future__ import annotations

from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

from retia.config.schema.secret import (
    AUTHORITY_KEYS,
    AUTHORITY_SUFFIX,
    CERTIFICATE_KEYS,
    CRL_KEYS,
    PRIVATE_KEYS,
    Private,
    Secret,
)
from retia.model.resource import Provenance
from retia.model.snapshot import View


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate chain and its private key, both PEM; ``wrong`` (why there is none) is one sentence."""

    chain: bytes = b""
    key: Private | None = None
    wrong: str = ""
    provenance: tuple[Provenance, ...] = ()


@dataclass(frozen=True, slots=True)
class Trust:
    """An authority and perhaps its revocation list, PEM; ``wrong`` (why there is none) is one sentence."""

    authority: bytes = b""
    revoked: bytes = b""
    wrong: str = ""
    provenance: tuple[Provenance, ...] = ()


def key_pair(view: View, secret: str) -> KeyPair:
    """The certificate and key of the secret ``namespace/name``."""
    found = _secret(view, secret)
    if found is None:
        return KeyPair(wrong=f"there is no Secret {secret}")
    spec, provenance = found
    chain, key = spec.value(*CERTIFICATE_KEYS), spec.value(*PRIVATE_KEYS)
    if chain is None or key is None:
        missing = "certificate (tls.crt or cert)" if chain is None else "private key (tls.key or key)"
        return KeyPair(wrong=f"Secret {secret} has no {missing}", provenance=provenance)
    wrong = mismatch(chain.reveal(), key)
    if wrong:
        return KeyPair(wrong=f"Secret {secret}: {wrong}", provenance=provenance)
    return KeyPair(chain.reveal(), key, provenance=provenance)


def trust(view: View, secret: str) -> Trust:
    """The authority that belongs to the secret ``namespace/name``: in ``<name>-cacert``, or in itself."""
    names = [secret] if secret.endswith(AUTHORITY_SUFFIX) else [f"{secret}{AUTHORITY_SUFFIX}", secret]
    provenance: tuple[Provenance, ...] = ()
    for name in names:
        found = _secret(view, name)
        if found is None:
            continue
        spec, own = found
        provenance += own
        keys = (*AUTHORITY_KEYS, *CERTIFICATE_KEYS) if name.endswith(AUTHORITY_SUFFIX) else AUTHORITY_KEYS
        authority = spec.value(*keys)
        if authority is None:
            continue
        revoked = spec.value(*CRL_KEYS)
        wrong = unreadable(authority.reveal(), revoked.reveal() if revoked else b"")
        if wrong:
            return Trust(wrong=f"Secret {name}: {wrong}", provenance=provenance)
        return Trust(authority.reveal(), revoked.reveal() if revoked else b"", provenance=provenance)
    return Trust(
        wrong=f"neither Secret {names[0]} nor {secret} has an authority (ca.crt or cacert)"
        if len(names) > 1
        else f"Secret {secret} doesn't exist or has no authority (ca.crt or cacert)",
        provenance=provenance,
    )


def _secret(view: View, name: str) -> tuple[Secret, tuple[Provenance, ...]] | None:
    namespace, _, rest = name.partition("/")
    obj = view.fact("config", "Secret", namespace, rest)
    return None if obj is None else (obj.spec, (Provenance(obj.ref),))


def mismatch(chain: bytes, key: Private) -> str:
    """Why a chain and a key can't be used together; empty: they can."""
    try:
        certificates = x509.load_pem_x509_certificates(chain)
    except ValueError:
        return "its certificate can't be read; it must be PEM"
    try:
        private = load_pem_private_key(key.reveal(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return "its private key can't be read; it must be PEM, without a password"
    try:
        same = _public(certificates[0].public_key()) == _public(private.public_key())
    except (ValueError, UnsupportedAlgorithm):
        return "its certificate has a key of a kind that isn't known here"
    return "" if same else "its private key is not that of its certificate"


def unreadable(authority: bytes, revoked: bytes) -> str:
    """Why an authority can't be used; empty: it can."""
    try:
        x509.load_pem_x509_certificates(authority)
    except ValueError:
        return "its authority can't be read; it must be PEM"
    if revoked:
        try:
            x509.load_pem_x509_crl(revoked)
        except ValueError:
            return "its revocation list can't be read; it must be PEM"
    return ""


def _public(key: object) -> bytes:
    data: bytes = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined]
    return data
