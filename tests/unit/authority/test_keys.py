"""Private keys and their files."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from retia.authority.errors import AuthorityError
from retia.authority.keys import (
    key_from_pem,
    key_to_pem,
    make_key,
    public_bytes,
    public_hash,
    signature_hash,
    write_private,
)
from retia.identity.secret import Secret


def pem_of(key: object, password: bytes | None = None) -> Secret:
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password:
        encryption = serialization.BestAvailableEncryption(password)
    content: bytes = key.private_bytes(  # type: ignore[attr-defined]
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    )
    return Secret(content)


def test_a_key_is_on_p256_and_survives_its_file() -> None:
    key = make_key()
    assert isinstance(key.curve, ec.SECP256R1)
    again = key_from_pem(key_to_pem(key), "a file")
    assert public_bytes(again.public_key()) == public_bytes(key.public_key())
    assert len(public_hash(key.public_key())) == 64
    assert repr(key_to_pem(key)) == "[redacted]"


@pytest.mark.parametrize(
    "key", [ec.generate_private_key(ec.SECP384R1()), rsa.generate_private_key(65537, 2048)]
)
def test_users_may_bring_other_strong_keys(key: ec.EllipticCurvePrivateKey) -> None:
    loaded = key_from_pem(pem_of(key), "a file")
    assert signature_hash(loaded).name == (
        "sha384" if isinstance(key, ec.EllipticCurvePrivateKey) else "sha256"
    )


@pytest.mark.parametrize(
    ("pem", "reason"),
    [
        (Secret(b""), "no private key"),
        (Secret(b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"), "no private key"),
        (pem_of(ed25519.Ed25519PrivateKey.generate()), "unsupported kind"),
        (pem_of(ec.generate_private_key(ec.SECP521R1())), "unsupported kind"),
        (pem_of(rsa.generate_private_key(65537, 1024)), "unsupported kind"),
        (pem_of(make_key(), b"secret"), "is encrypted"),
    ],
    ids=["empty", "garbage", "ed25519", "p521", "weak rsa", "encrypted"],
)
def test_other_keys_are_refused_with_the_files_name(pem: Secret, reason: str) -> None:
    with pytest.raises(AuthorityError, match=f"a/file: .*{reason}"):
        key_from_pem(pem, "a/file")


def test_a_private_file_is_its_owners_alone_even_where_another_was(tmp_path: Path) -> None:
    path = tmp_path / "a.key"
    path.write_text("old")
    path.chmod(0o644)
    write_private(path, Secret(b"new"))
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]
