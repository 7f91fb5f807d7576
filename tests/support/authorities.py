"""Certificates and authorities for tests: real ones, at a fixed time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from retia.authority.authority import Authority
from retia.authority.keys import make_key
from retia.identity.profiles import DEFAULT_LIFETIME
from retia.identity.spiffe import TrustDomain

NOW = datetime(2030, 6, 1, 12, tzinfo=UTC)
DOMAIN = TrustDomain("cluster.local")


def authority_in(
    directory: Path, now: datetime = NOW, domain: str = DOMAIN, lifetime: timedelta = DEFAULT_LIFETIME
) -> Authority:
    """A self-made authority in ``directory/authority``."""
    return Authority.open(directory / "authority", TrustDomain(domain), now, lifetime=lifetime)


class Ca:
    """A user's certificate authority, with every fault that a test wants."""

    def __init__(
        self,
        name: str,
        parent: Ca | None = None,
        *,
        path_length: int | None = None,
        ca: bool = True,
        signs: bool = True,
        not_before: datetime = NOW - timedelta(days=1),
        days: int = 100,
        constraints: bool = True,
        key: ec.EllipticCurvePrivateKey | None = None,
    ) -> None:
        self.key = key or make_key()
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issuer = parent or self
        builder = (
            x509.CertificateBuilder()
            .subject_name(self.name)
            .issuer_name(issuer.name)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(not_before)
            .not_valid_after(not_before + timedelta(days=days))
        )
        if constraints:
            builder = builder.add_extension(x509.BasicConstraints(ca, path_length if ca else None), True)
            usage = x509.KeyUsage(True, False, False, False, False, signs, signs, False, False)
            builder = builder.add_extension(usage, True)
        self.certificate = builder.sign(issuer.key, hashes.SHA256())

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )


def write_own(directory: Path, signing: Ca, root: Ca, *between: Ca) -> Path:
    """The files of a user's own authority, by Istio's names."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "ca-cert.pem").write_bytes(signing.pem)
    key = directory / "ca-key.pem"
    key.write_bytes(signing.key_pem)
    key.chmod(0o600)
    (directory / "root-cert.pem").write_bytes(root.pem)
    if between:
        (directory / "cert-chain.pem").write_bytes(b"".join(c.pem for c in between))
    return directory
