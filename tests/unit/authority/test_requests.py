"""Of a signing request only a proven public key is taken."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from retia.authority.errors import RequestError
from retia.authority.keys import make_key, public_bytes
from retia.authority.requests import MAX_REQUEST_BYTES, make_request, read_request

KEY = make_key()
GOOD = make_request(KEY)


def test_a_request_gives_its_public_key() -> None:
    assert public_bytes(read_request(GOOD)) == public_bytes(KEY.public_key())


def test_nothing_else_in_it_matters() -> None:
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "root")]))
        .add_extension(x509.BasicConstraints(True, None), critical=True)
        .sign(KEY, hashes.SHA256())
        .public_bytes(serialization.Encoding.DER)
    )
    assert public_bytes(read_request(request)) == public_bytes(KEY.public_key())


def _der(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return make_request(key)


@pytest.mark.parametrize(
    ("request_der", "reason"),
    [
        (b"", "malformed"),
        (b"\x30" * 100, "malformed"),
        (GOOD[:-1], "malformed"),
        (_der(rsa.generate_private_key(65537, 2048)), "another kind of key"),
        (_der(ec.generate_private_key(ec.SECP384R1())), "another kind of key"),
        (b"a" * (MAX_REQUEST_BYTES + 1), "at most"),
    ],
    ids=["empty", "garbage", "cut", "rsa", "p384", "long"],
)
def test_other_requests_are_refused(request_der: bytes, reason: str) -> None:
    with pytest.raises(RequestError, match=reason):
        read_request(request_der)


def test_somebody_elses_public_key_is_refused() -> None:
    mine, theirs = public_bytes(KEY.public_key()), public_bytes(make_key().public_key())
    with pytest.raises(RequestError, match="doesn't hold the key"):
        read_request(GOOD.replace(mine, theirs))


@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
def test_no_changed_byte_passes(position: int, change: int) -> None:
    changed = bytearray(GOOD)
    changed[position] ^= change
    with pytest.raises(RequestError):
        read_request(bytes(changed))
