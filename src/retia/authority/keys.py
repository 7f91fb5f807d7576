"""Private keys: made on the machine that uses them, ECDSA on P-256, printed as ``[redacted]``."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from retia.authority.errors import AuthorityError
from retia.identity.secret import Secret

SigningKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
"""What may sign certificates: our own keys are P-256; users' own may be P-256, P-384 or RSA."""

PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey

_RSA_BITS = 2048
"""The least that BoringSSL, and so Envoy, and today's guidance (NIST SP 800-131A) accept."""


def make_key() -> ec.EllipticCurvePrivateKey:
    """A fresh key on P-256, the only curve that every Envoy accepts without being told."""
    return ec.generate_private_key(ec.SECP256R1())


def key_to_pem(key: SigningKey) -> Secret:
    """The key as unencrypted PKCS #8 PEM."""
    return Secret(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )


def key_from_pem(pem: Secret, where: str) -> SigningKey:
    """The key in ``pem``; raises :class:`~retia.authority.errors.AuthorityError`, which names ``where``."""
    try:
        key = serialization.load_pem_private_key(pem.reveal(), password=None)
    except TypeError as error:
        raise AuthorityError(
            f"{where}: the key is encrypted; store it without a passphrase, mode 0600"
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise AuthorityError(f"{where}: this is no private key in PEM form") from error
    if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1):
        return key
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size >= _RSA_BITS:
        return key
    raise AuthorityError(
        f"{where}: unsupported kind of key; ECDSA P-256 (best) or P-384, or RSA of at least {_RSA_BITS} "
        f"bits, "
        "is needed"
    )


def signature_hash(key: SigningKey) -> hashes.SHA256 | hashes.SHA384:
    """The hash that fits the key's strength."""
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.key_size > 256:
        return hashes.SHA384()
    return hashes.SHA256()


def public_bytes(key: object) -> bytes:
    """A public key as DER (SubjectPublicKeyInfo): what two keys are compared by."""
    der: bytes = key.public_bytes(  # type: ignore[attr-defined]
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return der


def public_hash(key: object) -> str:
    """SHA-256 of a public key, in hexadecimal digits."""
    return hashlib.sha256(public_bytes(key)).hexdigest()


def write_private(path: Path, content: Secret | bytes) -> None:
    """Writes a file that only its owner may read; it appears whole or not at all, also after a power cut."""
    data = content.reveal() if isinstance(content, Secret) else content
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Makes renames within a directory survive a power cut."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
