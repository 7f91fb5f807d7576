"""The join token: what lets a host into the mesh, once.

A token is one printable word, ``retia1.`` and base64url. It carries

- an *id* (8 bytes), by which the controller finds its record;
- a *secret* (24 random bytes, of which the controller keeps only a hash);
- the *fingerprint* (SHA-256 of the root certificate, DER), so that the host knows the right controller before
  it says anything;
- the *trust domain*;
- a checksum, so that a token with a lost or changed character is called damaged, not wrong.

It holds no address (a controller may be reached by several) and no expiry (the controller's clock decides).
"""

from __future__ import annotations

import base64
import binascii
import re
import zlib
from dataclasses import dataclass
from typing import Final

from retia.identity.secret import Secret
from retia.identity.spiffe import IdentityError, TrustDomain, parse_trust_domain

PREFIX: Final = "retia1."
ID_BYTES: Final = 8
SECRET_BYTES: Final = 24
FINGERPRINT_BYTES: Final = 32
_FIXED: Final = ID_BYTES + SECRET_BYTES + FINGERPRINT_BYTES
_CHECKSUM_BYTES: Final = 4
_MAX_CHARACTERS: Final = 512


class TokenError(ValueError):
    """A text that is no join token; the message says why and what to do, and never contains the text."""


@dataclass(frozen=True, slots=True)
class JoinToken:
    """A parsed token. Its ``repr`` doesn't show the secret; :meth:`encode` does."""

    id: str
    """16 hexadecimal digits; not secret."""
    secret: Secret
    fingerprint: bytes
    """SHA-256 of the root certificate's DER."""
    trust_domain: TrustDomain

    def encode(self) -> str:
        """The printable form. Whoever sees it can join a host until the token is used or expires."""
        body = bytes.fromhex(self.id) + self.secret.reveal() + self.fingerprint + self.trust_domain.encode()
        packed = body + zlib.crc32(body).to_bytes(_CHECKSUM_BYTES, "big")
        return PREFIX + base64.urlsafe_b64encode(packed).rstrip(b"=").decode()


def make_token(random: bytes, fingerprint: bytes, trust_domain: TrustDomain) -> JoinToken:
    """A token of 32 fresh random bytes. Raises ``ValueError`` for other lengths."""
    if len(random) != ID_BYTES + SECRET_BYTES:
        raise ValueError(f"{len(random)} random bytes; a token needs {ID_BYTES + SECRET_BYTES}")
    if len(fingerprint) != FINGERPRINT_BYTES:
        raise ValueError(f"a fingerprint of {len(fingerprint)} bytes; SHA-256 has {FINGERPRINT_BYTES}")
    return JoinToken(random[:ID_BYTES].hex(), Secret(random[ID_BYTES:]), fingerprint, trust_domain)


def parse_token(text: str) -> JoinToken:
    """``text`` as a join token, white space around it ignored; raises :class:`TokenError`."""
    body = _checked(_decoded(text.strip()))
    try:
        trust_domain = parse_trust_domain(body[_FIXED:].decode("ascii"))
    except (UnicodeDecodeError, IdentityError) as error:
        raise TokenError("the join token holds no valid trust domain; make a new one") from error
    return JoinToken(
        id=body[:ID_BYTES].hex(),
        secret=Secret(body[ID_BYTES : ID_BYTES + SECRET_BYTES]),
        fingerprint=body[ID_BYTES + SECRET_BYTES : _FIXED],
        trust_domain=trust_domain,
    )


def _decoded(text: str) -> bytes:
    if not text:
        raise TokenError("the join token is empty")
    if not text.startswith(PREFIX):
        if re.match(r"retia\d+\.", text):
            kind = text.split(".", 1)[0]
            raise TokenError(f"the join token is of kind {kind}, made by a newer Retia; upgrade this host's")
        raise TokenError(f"this is no join token: a join token begins with {PREFIX}")
    if len(text) > _MAX_CHARACTERS:
        raise TokenError(f"the join token has {len(text)} characters; at most {_MAX_CHARACTERS} are possible")
    encoded = text[len(PREFIX) :]
    if not re.fullmatch(r"[A-Za-z0-9_-]*", encoded, re.ASCII):
        raise TokenError("the join token holds a character outside A-Z, a-z, 0-9, '-' and '_'; copy it again")
    try:
        return base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
    except binascii.Error as error:
        raise TokenError("the join token is damaged (a character is missing); copy it again") from error


def _checked(packed: bytes) -> bytes:
    if len(packed) <= _FIXED + _CHECKSUM_BYTES:
        raise TokenError("the join token is too short (its end is missing); copy it again")
    body, checksum = packed[:-_CHECKSUM_BYTES], packed[-_CHECKSUM_BYTES:]
    if zlib.crc32(body).to_bytes(_CHECKSUM_BYTES, "big") != checksum:
        raise TokenError("the join token is damaged (a character was changed or is missing); copy it again")
    return body
