"""The user's own certificate authority, from files.

The file names are those of Istio's plug-in certificates (a directory ``cacerts``), so that what exists for
Istio can be given as it is: ``ca-cert.pem`` and ``ca-key.pem`` (what signs), ``cert-chain.pem`` (the
certificates between it and the root; may be missing) and ``root-cert.pem`` (one or more trusted roots).

Everything that would make a signature worthless is refused here, at start, rather than by an Envoy at the
first connection. Key and files are read where they are and not copied.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from retia.authority.certificates import Issuer, from_pem
from retia.authority.errors import AuthorityError
from retia.authority.keys import key_from_pem, public_bytes
from retia.identity.secret import Secret

CERTIFICATE, KEY, CHAIN, ROOTS = "ca-cert.pem", "ca-key.pem", "cert-chain.pem", "root-cert.pem"


@dataclass(frozen=True, slots=True)
class Loaded:
    """A validated authority.

    ``between`` are the certificates that a leaf's chain needs besides the leaf (the issuer first, without the
    root); ``roots`` are all trusted roots, the issuer's own first.
    """

    issuer: Issuer
    between: tuple[x509.Certificate, ...]
    roots: tuple[x509.Certificate, ...]
    notes: tuple[str, ...] = ()


def load(directory: Path, now: datetime) -> Loaded:
    """Reads and checks the files; raises :class:`~retia.authority.errors.AuthorityError`."""
    signing = from_pem(_read(directory / CERTIFICATE), str(directory / CERTIFICATE))
    key_file = directory / KEY
    key = key_from_pem(Secret(_read(key_file)), str(key_file))
    if public_bytes(key.public_key()) != public_bytes(signing[0].public_key()):
        raise AuthorityError(f"{key_file} is not the key of {directory / CERTIFICATE}")
    roots = from_pem(_read(directory / ROOTS), str(directory / ROOTS))
    chain_file = directory / CHAIN
    others = from_pem(_read(chain_file), str(chain_file)) if chain_file.exists() else ()
    path = _path(signing[0], (*signing[1:], *others), roots, directory)
    for below, certificate in enumerate(path):
        _check_authority(certificate, below, directory, now)
    root = path[-1]
    return Loaded(
        issuer=Issuer(signing[0], key),
        between=path[:-1],
        roots=(root, *(r for r in roots if r != root)),
        notes=_notes(key_file),
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise AuthorityError(
            f"{path} is missing: an own authority needs {CERTIFICATE}, {KEY} and {ROOTS} in one directory"
        ) from None
    except OSError as error:
        raise AuthorityError(f"{path} cannot be read: {error.strerror or error}") from error


def _path(
    signing: x509.Certificate,
    others: tuple[x509.Certificate, ...],
    roots: tuple[x509.Certificate, ...],
    directory: Path,
) -> tuple[x509.Certificate, ...]:
    """From the signing certificate up to a trusted root, both included."""
    path = [signing]
    while path[-1] not in roots:
        candidates = (c for c in (*roots, *others) if c not in path)
        issuer = next((c for c in candidates if _issued(path[-1], c)), None)
        if issuer is None:
            name = path[-1].issuer.rfc4514_string() or "a nameless issuer"
            raise AuthorityError(
                f"{directory}: no trusted root is reached: {path[-1].subject.rfc4514_string()!r} was issued "
                f"by "
                f"{name!r}, which is neither in {CHAIN} nor in {ROOTS}"
            )
        path.append(issuer)
    return tuple(path)


def _issued(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _check_authority(certificate: x509.Certificate, below: int, directory: Path, now: datetime) -> None:
    """``below`` authorities stand between this certificate and the leaves (0: it signs them itself)."""
    where = f"{directory}: {certificate.subject.rfc4514_string()!r}"
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        raise AuthorityError(f"{where} is no certificate authority (it has no basic constraints)") from None
    if not constraints.ca:
        raise AuthorityError(f"{where} is no certificate authority (its CA bit is not set)")
    if constraints.path_length is not None and constraints.path_length < below:
        raise AuthorityError(
            f"{where} allows {constraints.path_length} authorities below it, but there are {below}"
        )
    try:
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        usage = None
    if usage is not None and not usage.key_cert_sign:
        raise AuthorityError(f"{where} may not sign certificates (key usage keyCertSign is not set)")
    if now >= certificate.not_valid_after_utc:
        raise AuthorityError(f"{where} expired at {certificate.not_valid_after_utc:%F %T} UTC; renew it")
    if now < certificate.not_valid_before_utc:
        raise AuthorityError(
            f"{where} is valid only from {certificate.not_valid_before_utc:%F %T} UTC; is this clock right?"
        )


def _notes(key_file: Path) -> tuple[str, ...]:
    mode = key_file.stat().st_mode & 0o777
    if mode & 0o077:
        return (f"{key_file} can be read by others (mode {mode:04o}); chmod 600 it",)
    return ()
