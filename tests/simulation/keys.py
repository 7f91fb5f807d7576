"""Certificates of a run: one root, a leaf for each identity, made once.

Cases name them in their configuration, in double quotes: ``"${cert shop.example}"``,
``"${key shop.example}"`` and ``"${root}"`` are PEM texts, ``"${cert-file shop.example}"``,
``"${key-file shop.example}"`` and ``"${root-file}"`` are paths of files.
"""

from __future__ import annotations

import atexit
import re
import shutil
import ssl
import tempfile
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2

from retia.model.resource import Built, Resource, TypeUrl
from retia.xds.wire import encode

_NAMED = re.compile(r"\$\{(cert|key|root)(-file)?(?: ([^}]+))?\}")
MESH_ALPN = ["retia-h2", "retia-l4"]
_PEM = serialization.Encoding.PEM


class Keys:
    """``folder`` holds the PEM files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "root")])
        self.root_pem = self._certificate(self._name, self._key.public_key(), ca=True)
        self.root = folder / "root.pem"
        self.root.write_bytes(self.root_pem)
        self._leaves: dict[str, tuple[Path, Path]] = {}
        self._contexts: dict[str, ssl.SSLContext] = {}

    def leaf(self, identity: str) -> tuple[Path, Path]:
        """Paths of the certificate and key of a SPIFFE id or a DNS name."""
        if identity not in self._leaves:
            key = ec.generate_private_key(ec.SECP256R1())
            stem = self.folder / f"leaf-{len(self._leaves)}"
            pem = self._certificate(x509.Name([]), key.public_key(), identity=identity)
            paths = stem.with_suffix(".pem"), stem.with_suffix(".key")
            paths[0].write_bytes(pem)
            encryption = serialization.NoEncryption()
            paths[1].write_bytes(key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, encryption))
            self._leaves[identity] = paths
        return self._leaves[identity]

    def server(self, identity: str, *, mutual: bool, alpn: list[str]) -> ssl.SSLContext:
        """For a server of that identity; ``mutual``: clients must show a certificate of the root."""
        kept = f"{identity} {mutual} {alpn}"
        if kept not in self._contexts:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*self.leaf(identity))
            context.set_alpn_protocols(alpn)
            if mutual:
                context.verify_mode = ssl.CERT_REQUIRED
                context.load_verify_locations(self.root)
            self._contexts[kept] = context
        return self._contexts[kept]

    def client(self, alpn: list[str], identity: str = "") -> ssl.SSLContext:
        """For a client that trusts everybody, with a certificate of ``identity`` where one is given."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        if alpn:
            context.set_alpn_protocols(alpn)
        if identity:
            context.load_cert_chain(*self.leaf(identity))
        return context

    def secrets(self, identity: str) -> dict[str, Resource]:
        """What an agent serves its proxies: the own certificate and the trust bundle."""
        certificate, key = self.leaf(identity)
        own = secret_pb2.Secret(name="default")
        own.tls_certificate.certificate_chain.inline_bytes = certificate.read_bytes()
        own.tls_certificate.private_key.inline_bytes = key.read_bytes()
        root = secret_pb2.Secret(name="ROOTCA")
        root.validation_context.trusted_ca.inline_bytes = self.root_pem
        return {
            s.name: encode(TypeUrl.SECRET, Built(s.name, s.SerializeToString(deterministic=True)))
            for s in (own, root)
        }

    def _certificate(self, subject: x509.Name, key: Any, *, ca: bool = False, identity: str = "") -> bytes:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=5))
            .not_valid_after(now + timedelta(hours=2))
            .add_extension(x509.BasicConstraints(ca, None), critical=True)
        )
        if identity:
            name = x509.UniformResourceIdentifier if "://" in identity else x509.DNSName
            names = x509.SubjectAlternativeName([name(identity)])
            builder = builder.add_extension(names, critical=not subject)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(_PEM)

    def put(self, text: str) -> str:
        """The text with the certificates that it names."""

        def one(match: re.Match[str]) -> str:
            kind, file, name = match.groups()
            path = self.root if kind == "root" else self.leaf(name)[0 if kind == "cert" else 1]
            return str(path) if file else path.read_text().replace("\n", "\\n")

        return _NAMED.sub(one, text)


@cache
def keys() -> Keys:
    """Those of this process."""
    folder = tempfile.mkdtemp(prefix="retia-keys-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Keys(Path(folder))
