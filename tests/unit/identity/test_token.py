"""The join token's printable form."""

from __future__ import annotations

import base64
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retia.identity.spiffe import TrustDomain
from retia.identity.token import PREFIX, TokenError, make_token, parse_token

FINGERPRINT = bytes(range(32))
TOKEN = make_token(b"i" * 8 + b"s" * 24, FINGERPRINT, TrustDomain("cluster.local"))
TEXT = TOKEN.encode()


def test_it_survives_printing_and_pasting() -> None:
    assert parse_token(f"  {TEXT}\n") == TOKEN
    assert TOKEN.id == "69" * 8
    assert TOKEN.fingerprint == FINGERPRINT
    assert TEXT.startswith("retia1.")
    assert len(TEXT.split()) == 1


def test_its_secret_is_not_in_its_repr() -> None:
    assert "[redacted]" in repr(TOKEN)
    assert "sss" not in repr(TOKEN)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is empty"),
        ("hello", "this is no join token"),
        ("retia2.abc", "of kind retia2, made by a newer Retia"),
        (PREFIX, "too short"),
        (TEXT[:19], "too short"),
        (TEXT[:-1], "damaged"),
        (TEXT[:-4], "damaged"),
        (TEXT[:30] + ("A" if TEXT[30] != "A" else "B") + TEXT[31:], "damaged"),
        (TEXT + "=", "a character outside"),
        (TEXT[:30] + " " + TEXT[30:], "a character outside"),
        (PREFIX + "A" * 600, "characters; at most"),
    ],
    ids=["empty", "no token", "newer", "nothing", "cut", "last", "end", "changed", "padded", "split", "long"],
)
def test_a_wrong_token_is_refused_with_its_reason(text: str, reason: str) -> None:
    with pytest.raises(TokenError, match=reason) as caught:
        parse_token(text)
    if len(text) > 10:
        assert text not in str(caught.value)


def test_a_token_with_a_wrong_trust_domain_is_refused() -> None:
    body = b"x" * 64 + b"NOT VALID"
    packed = body + zlib.crc32(body).to_bytes(4, "big")
    with pytest.raises(TokenError, match="no valid trust domain"):
        parse_token(PREFIX + base64.urlsafe_b64encode(packed).rstrip(b"=").decode())


@given(st.text() | st.text(alphabet="abcXYZ019-_").map(lambda t: PREFIX + t))
def test_any_text_is_a_token_or_the_one_documented_error(text: str) -> None:
    try:
        parse_token(text)
    except TokenError:
        return
    raise AssertionError("nobody guesses a token")


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32))
def test_all_bytes_survive(random: bytes, fingerprint: bytes) -> None:
    token = make_token(random, fingerprint, TrustDomain("a"))
    assert parse_token(token.encode()) == token


@pytest.mark.parametrize(("random", "fingerprint"), [(b"", FINGERPRINT), (b"x" * 32, b"")])
def test_it_is_made_of_the_right_number_of_bytes(random: bytes, fingerprint: bytes) -> None:
    with pytest.raises(ValueError, match="bytes"):
        make_token(random, fingerprint, TrustDomain("a"))
