"""Certificate signing requests: made by agents, read by the authority.

Of a request only the public key is used, after its signature has proved that the sender holds the private
one. Subject, names and extensions in it are ignored: who somebody is, is decided by who asks, never by what
the request says.
"""

from __future__ import annotations

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from retia.authority.errors import RequestError
from retia.authority.keys import SigningKey, signature_hash

MAX_REQUEST_BYTES = 8192
"""A request for a P-256 key has about 200 bytes; the rest is room for other libraries' habits."""


def make_request(key: SigningKey) -> bytes:
    """A request (DER) for the key's certificate; it holds nothing but the public key."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key, signature_hash(key)).public_bytes(serialization.Encoding.DER)


def read_request(csr_der: bytes) -> ec.EllipticCurvePublicKey:
    """The public key of a request whose signature is right.

    Raises :class:`~retia.authority.errors.RequestError` for anything else, also for keys that aren't on
    P-256.
    """
    if len(csr_der) > MAX_REQUEST_BYTES:
        raise RequestError(f"the signing request has {len(csr_der)} bytes; at most {MAX_REQUEST_BYTES}")
    try:
        request = x509.load_der_x509_csr(csr_der)
        key = request.public_key()
    except (ValueError, x509.InvalidVersion, UnsupportedAlgorithm) as error:
        raise RequestError("the signing request is malformed (PKCS #10, DER, is needed)") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise RequestError("the signing request has another kind of key than ECDSA P-256")
    try:
        valid = request.is_signature_valid
    except (ValueError, InvalidSignature, UnsupportedAlgorithm) as error:
        raise RequestError("the signing request's signature can't be checked") from error
    if not valid:
        raise RequestError("the signing request's signature is wrong: its sender doesn't hold the key")
    return key
