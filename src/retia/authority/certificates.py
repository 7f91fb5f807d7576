"""Certificates as bytes: made from a profile, read back, put into PEM.

Extensions are those of the X.509-SVID specification and of RFC 5280 in its strict reading (Python 3.13 and
newer verify strictly by default): key identifiers everywhere, critical constraints and usages, an empty
subject with a critical URI name in leaves.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from retia.authority.errors import AuthorityError
from retia.authority.keys import PublicKey, SigningKey, signature_hash
from retia.identity.profiles import Profile, Usage
from retia.identity.rotation import Life

_EXTENDED = {
    Usage.SERVER_AUTH: ExtendedKeyUsageOID.SERVER_AUTH,
    Usage.CLIENT_AUTH: ExtendedKeyUsageOID.CLIENT_AUTH,
}


@dataclass(frozen=True, slots=True)
class Issuer:
    """Who signs: a certificate with its key."""

    certificate: x509.Certificate
    key: SigningKey

    def __repr__(self) -> str:
        return f"Issuer({self.certificate.subject.rfc4514_string()})"


def make_root(profile: Profile, name: str, key: SigningKey, now: datetime) -> x509.Certificate:
    """A certificate that signs itself."""
    subject = _subject(name)
    not_before, not_after = profile.validity(now)
    builder = _builder(profile, subject, subject, key.public_key(), (not_before, not_after))
    return builder.sign(key, signature_hash(key))


def make_intermediate(
    profile: Profile, name: str, public: PublicKey, issuer: Issuer, now: datetime
) -> x509.Certificate:
    """A signing certificate below ``issuer``; it doesn't outlive it."""
    builder = _below(profile, _subject(name), public, issuer, now)
    return builder.sign(issuer.key, signature_hash(issuer.key))


def make_leaf(
    profile: Profile, uri: str, public: PublicKey, issuer: Issuer, now: datetime
) -> x509.Certificate:
    """The certificate of one identity; it doesn't outlive its issuer."""
    builder = _below(profile, x509.Name([]), public, issuer, now)
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)])
    return builder.add_extension(names, critical=True).sign(issuer.key, signature_hash(issuer.key))


def to_pem(*certificates: x509.Certificate) -> bytes:
    """The certificates one after another, PEM."""
    return b"".join(c.public_bytes(serialization.Encoding.PEM) for c in certificates)


def from_pem(pem: bytes, where: str) -> tuple[x509.Certificate, ...]:
    """All certificates in ``pem``, at least one; raises AuthorityError, which names ``where``."""
    try:
        return tuple(x509.load_pem_x509_certificates(pem))
    except ValueError as error:
        raise AuthorityError(f"{where}: this holds no certificate in PEM form") from error


def fingerprint(certificate: x509.Certificate) -> bytes:
    """SHA-256 of the certificate's DER: what ``openssl x509 -fingerprint -sha256`` prints."""
    return hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).digest()


def life_of(certificate: x509.Certificate) -> Life:
    """From when until when the certificate is valid."""
    return Life(certificate.not_valid_before_utc, certificate.not_valid_after_utc)


def life_of_chain(chain_pem: bytes) -> Life:
    """From when until when the first certificate of a chain is valid."""
    return life_of(from_pem(chain_pem, "the certificate chain")[0])


def uris_of(certificate: x509.Certificate) -> tuple[str, ...]:
    """The URI names of a certificate."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return tuple(names.get_values_for_type(x509.UniformResourceIdentifier))


def _subject(name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Retia"),
            x509.NameAttribute(NameOID.COMMON_NAME, name[:64]),  # RFC 5280: ub-common-name
        ]
    )


def _below(
    profile: Profile, subject: x509.Name, public: PublicKey, issuer: Issuer, now: datetime
) -> x509.CertificateBuilder:
    not_before, not_after = profile.validity(now)
    end = min(not_after, issuer.certificate.not_valid_after_utc)
    if end <= now:
        raise AuthorityError(
            f"the signing certificate {issuer.certificate.subject.rfc4514_string()} expired at {end:%F %T} "
            f"UTC"
        )
    begin = max(not_before, issuer.certificate.not_valid_before_utc)
    builder = _builder(profile, subject, issuer.certificate.subject, public, (begin, end))
    return builder.add_extension(_key_identifier_of(issuer.certificate), critical=False)


def _builder(
    profile: Profile,
    subject: x509.Name,
    issuer: x509.Name,
    public: PublicKey,
    validity: tuple[datetime, datetime],
) -> x509.CertificateBuilder:
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(validity[0])
        .not_valid_after(validity[1])
        .add_extension(x509.BasicConstraints(profile.authority, profile.path_length), critical=True)
        .add_extension(_key_usage(profile), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )
    extended = [oid for usage, oid in _EXTENDED.items() if usage in profile.usages]
    if extended:
        builder = builder.add_extension(x509.ExtendedKeyUsage(extended), critical=False)
    return builder


def _key_usage(profile: Profile) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=Usage.DIGITAL_SIGNATURE in profile.usages,
        key_cert_sign=Usage.KEY_CERT_SIGN in profile.usages,
        crl_sign=Usage.CRL_SIGN in profile.usages,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _key_identifier_of(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    try:
        own = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key())  # type: ignore[arg-type]
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)
