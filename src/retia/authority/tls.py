"""TLS between hosts and controllers, known to one another by SPIFFE names.

Python's ``ssl`` verifies chains but knows no SPIFFE names. Every context made here therefore checks, as the
last step of the handshake and before a byte of the application passes, the one URI name in the peer's
certificate; a wrong peer fails the handshake like any other. The hook is ``SSLContext.sslobject_class``,
which asyncio, uvloop and so grpclib all go through.

- A *server* takes hosts with a certificate and, for the join, hosts without one; who is who is told by
  :func:`peer_of`.
- A *client* trusts the bundle, shows its own certificate and demands a controller's name.
- A *joining* client knows only the root's fingerprint: :func:`fetch_root` reads the chain that the server
  shows, takes the root by its fingerprint, sends nothing and hangs up; the join itself then runs over a
  connection that is verified in full by that root.

TLS 1.3 only: both ends are ours. Certificates are renewed in a running server by :func:`use_pair`.
"""

from __future__ import annotations

import asyncio
import hmac
import os
import socket
import ssl
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from retia.authority.certificates import fingerprint
from retia.authority.errors import PeerRefused, PinMismatch
from retia.identity.secret import Secret
from retia.identity.spiffe import (
    ControllerIdentity,
    HostIdentity,
    Identity,
    IdentityError,
    TrustDomain,
    parse_identity,
)

ALPN: Final = ("h2",)
FETCH_TIMEOUT_S: Final = 10.0
PeerCertificate = Mapping[str, Any]
"""What ``getpeercert()`` returns: empty without a verified certificate."""


def peer_of(certificate: PeerCertificate | None, trust_domain: TrustDomain) -> Identity | None:
    """Whose certificate it is; ``None``: none was shown.

    ``certificate`` comes from ``getpeercert()`` (grpclib: ``stream.peer.cert()``) of a connection whose
    context verified the chain. Raises :class:`~retia.authority.errors.PeerRefused` unless there is exactly
    one URI name (as the X.509-SVID specification demands), of a known form, in ``trust_domain``.
    """
    if not certificate:
        return None
    uris = [value for kind, value in certificate.get("subjectAltName", ()) if kind == "URI"]
    if len(uris) != 1:
        raise PeerRefused(f"the peer's certificate has {len(uris)} URI names; exactly one is needed")
    try:
        identity = parse_identity(uris[0])
    except IdentityError as error:
        raise PeerRefused(f"the peer's certificate: {error}") from error
    if identity.trust_domain != trust_domain:
        raise PeerRefused(
            f"the peer belongs to trust domain {identity.trust_domain}, not to {trust_domain}: another mesh"
        )
    return identity


def server_context(
    chain_pem: bytes, key_pem: Secret, bundle_pem: bytes, trust_domain: TrustDomain
) -> ssl.SSLContext:
    """For the controller's listener. A client that shows a certificate must be a host of the trust domain;
    one that shows none gets through the handshake, and the handler decides."""

    def check(certificate: PeerCertificate | None) -> None:
        peer = peer_of(certificate, trust_domain)
        if peer is not None and not isinstance(peer, HostIdentity):
            raise PeerRefused(f"the peer is {peer}; only hosts may connect here")

    context = _context(ssl.PROTOCOL_TLS_SERVER, check)
    context.verify_mode = ssl.CERT_OPTIONAL
    context.load_verify_locations(cadata=bundle_pem.decode("ascii"))
    use_pair(context, chain_pem, key_pem)
    return context


def client_context(
    bundle_pem: bytes,
    trust_domain: TrustDomain,
    chain_pem: bytes | None = None,
    key_pem: Secret | None = None,
) -> ssl.SSLContext:
    """For a host that speaks to its controller, with its own certificate or, for the join, without.

    The host name that was dialled plays no part: the peer must be a controller of ``trust_domain``, signed by
    a root of the bundle.
    """

    def check(certificate: PeerCertificate | None) -> None:
        peer = peer_of(certificate, trust_domain)
        if not isinstance(peer, ControllerIdentity):
            raise PeerRefused(f"the peer is {peer or 'nobody'}, but a controller is needed")

    context = _context(ssl.PROTOCOL_TLS_CLIENT, check)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=bundle_pem.decode("ascii"))
    if chain_pem is not None and key_pem is not None:
        use_pair(context, chain_pem, key_pem)
    return context


def use_pair(context: ssl.SSLContext, chain_pem: bytes, key_pem: Secret) -> None:
    """Shows this certificate in all handshakes from now on; connections that exist go on. Raises
    ``ssl.SSLError`` when key and certificate don't belong together (the old pair then stays)."""
    with _as_file(key_pem.reveal() + b"\n" + chain_pem) as path:
        context.load_cert_chain(path)


async def fetch_root(
    host: str, port: int, pinned: bytes, timeout_s: float = FETCH_TIMEOUT_S, sock: Any = None
) -> bytes:
    """The root certificate (PEM) with the fingerprint ``pinned``, as the server at ``host:port`` shows it.

    Nothing is sent but the handshake, and nothing that the server says is believed but what has that
    fingerprint. ``sock`` is a connected socket to use instead. Raises
    :class:`~retia.authority.errors.PinMismatch`, ``OSError`` when nobody answers, ``ssl.SSLError`` when it
    isn't TLS, ``TimeoutError``. Cancelling closes the connection.
    """
    context = _context(ssl.PROTOCOL_TLS_CLIENT, lambda _: None)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    async with asyncio.timeout(timeout_s):
        where: dict[str, Any] = {"host": host, "port": port} if sock is None else {"sock": sock}
        _, writer = await asyncio.open_connection(**where, ssl=context, server_hostname=host)
    try:
        shown = _shown_chain(writer.get_extra_info("ssl_object"))
    finally:
        writer.transport.abort()
    for der in shown:
        certificate = x509.load_der_x509_certificate(der)
        if hmac.compare_digest(fingerprint(certificate), pinned):
            return certificate.public_bytes(serialization.Encoding.PEM)
    raise PinMismatch(
        f"the controller at {host}:{port} is not the one that made this join token: none of the "
        f"{len(shown)} certificates that it shows has SHA-256 {pinned.hex()}. Check the address, or make a "
        "new token there"
    )


def is_stranger(error: ssl.SSLCertVerificationError) -> bool:
    """Whether a handshake failed because the other end is of another mesh, and not for reasons of time."""
    return isinstance(error, PeerRefused) or error.verify_code in _STRANGERS


def explain(error: BaseException) -> str:
    """A failed connection in one sentence, with the next step where there is one."""
    if isinstance(error, PeerRefused):
        return str(error.args[0] if error.args else error)
    if isinstance(error, ssl.SSLCertVerificationError):
        return _VERIFY_REMEDIES.get(error.verify_code, f"the certificate is refused: {error.verify_message}")
    if isinstance(error, ssl.SSLError):
        reason = (error.reason or str(error)).lower().replace("_", " ")
        return _ALERTS.get(reason, f"TLS failed: {reason}")
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, socket.gaierror):
        return f"the name can't be resolved ({error.strerror})"
    if isinstance(error, OSError):
        # asyncio's own sentence repeats the address and hides the reason.
        return os.strerror(error.errno) if error.errno else error.strerror or str(error)
    return str(error) or type(error).__name__


_UNKNOWN: Final = "the controller is signed by an authority unknown to this host: it is of another mesh"
_STRANGERS: Final = (18, 19, 20)
_VERIFY_REMEDIES: Final = {
    9: "the controller's certificate is not yet valid: this host's clock is behind; set it right",
    10: "the controller's certificate has expired: this clock is ahead, or it was not renewed",
    **dict.fromkeys(_STRANGERS, _UNKNOWN),
}
"""By OpenSSL's X509_V_ERR numbers (x509_vfy.h)."""

_ALERTS: Final = {
    "tlsv1 alert unknown ca": "the controller does not know this host's authority: join again",
    "sslv3 alert certificate expired": "this host's certificate has expired: join again with a new token",
    "ssl/tls alert certificate expired": "this host's certificate has expired: join again with a new token",
    "wrong version number": "the other end does not speak TLS: check address and port",
}


def _context(protocol: int, check: Callable[[PeerCertificate | None], None]) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(list(ALPN))

    class CheckedObject(ssl.SSLObject):
        def do_handshake(self) -> None:
            super().do_handshake()
            check(self.getpeercert())

    class CheckedSocket(ssl.SSLSocket):
        def do_handshake(self, block: bool = False) -> None:
            super().do_handshake(block)
            check(self.getpeercert())

    context.sslobject_class = CheckedObject
    context.sslsocket_class = CheckedSocket
    return context


def _shown_chain(connection: Any) -> list[bytes]:
    """The certificates that the peer sent, DER. The method is public from Python 3.13 on; before, the same
    one is there under a private name and gives objects."""
    if hasattr(connection, "get_unverified_chain"):
        return list(connection.get_unverified_chain())
    import _ssl

    chain = connection._sslobj.get_unverified_chain() or ()
    return [certificate.public_bytes(_ssl.ENCODING_DER) for certificate in chain]


@contextmanager
def _as_file(content: bytes) -> Iterator[str]:
    """``ssl`` reads pairs from files only: memory that has a path, where the system knows such."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("retia-pair", os.MFD_CLOEXEC)
        try:
            with os.fdopen(fd, "wb", closefd=False) as file:
                file.write(content)
            yield f"/proc/self/fd/{fd}"
        finally:
            os.close(fd)
        return
    fd, path = tempfile.mkstemp(prefix="retia-")
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(content)
        yield path
    finally:
        with suppress(FileNotFoundError):
            os.unlink(path)  # noqa: PTH108
