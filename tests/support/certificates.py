"""Certificates with keys for servers and clients of tests, and the Secrets that hold them."""

from __future__ import annotations

import textwrap
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class Pair:
    """A certificate with its key: self-signed, or signed by another one. Valid from an hour ago for a day."""

    def __init__(self, name: str, issuer: Pair | None = None) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        # Two authorities of one name would be taken for one another.
        serial = x509.random_serial_number()
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{name} {serial % 10**12}")])
        now = datetime.now(UTC)
        self.certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer.certificate.subject if issuer else subject)
            .public_key(self.key.public_key())
            .serial_number(serial)
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
            .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
            .sign((issuer or self).key, hashes.SHA256())
        )

    @property
    def chain(self) -> str:
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    @property
    def private(self) -> str:
        form = serialization.PrivateFormat.PKCS8
        return self.key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()

    @property
    def serial(self) -> int:
        return self.certificate.serial_number

    def secret(self, name: str, authority: Pair | None = None, namespace: str = "default") -> str:
        """A Secret with both, and perhaps an authority of clients."""
        values = {"tls.crt": self.chain, "tls.key": self.private}
        if authority is not None:
            values["ca.crt"] = authority.chain
        return secret(name, values, namespace)


def secret(name: str, values: dict[str, str], namespace: str = "default", kind: str = "Opaque") -> str:
    """A Secret with these values."""
    head = f"apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: {namespace}}}\ntype: {kind}\n"
    lines = (f"  {key}: |\n{textwrap.indent(value.rstrip(), ' ' * 4)}\n" for key, value in values.items())
    return head + "stringData:\n" + "".join(lines)
