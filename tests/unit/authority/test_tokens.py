"""Join tokens: one host, once, in time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from retia.authority import tokens as module
from retia.authority.errors import AuthorityError, TokenRefused
from retia.authority.tokens import KEPT, Tokens
from retia.identity.spiffe import TrustDomain
from retia.sources.memory import MemoryStore
from retia.sources.space import Space
from tests.support.authorities import DOMAIN, NOW

PIN = bytes(32)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def tokens(store: MemoryStore) -> Tokens:
    return Tokens(Space(store, "tokens"), PIN, DOMAIN)


def test_a_token_lets_one_host_in(tokens: Tokens) -> None:
    token = tokens.issue(NOW).encode()
    tokens.redeem(token, "a", "key", NOW)
    with pytest.raises(TokenRefused, match="was used by host a already"):
        tokens.redeem(token, "b", "other", NOW)


def test_the_same_host_with_the_same_key_may_repeat_it(tokens: Tokens) -> None:
    token = tokens.issue(NOW).encode()
    tokens.redeem(token, "a", "key", NOW)
    tokens.redeem(token, "a", "key", NOW + timedelta(minutes=1))
    with pytest.raises(TokenRefused, match="already"):
        tokens.redeem(token, "a", "another key", NOW)
    with pytest.raises(TokenRefused, match="expired"):
        tokens.redeem(token, "a", "key", NOW + timedelta(hours=1))


def test_a_token_expires(tokens: Tokens) -> None:
    token = tokens.issue(NOW, timedelta(minutes=5)).encode()
    with pytest.raises(TokenRefused, match="expired at 2030-06-01 12:05:00 UTC; make a new one"):
        tokens.redeem(token, "a", "key", NOW + timedelta(minutes=5))
    tokens.redeem(token, "a", "key", NOW + timedelta(minutes=4, seconds=59))


def test_a_token_may_be_for_one_host_only(tokens: Tokens) -> None:
    token = tokens.issue(NOW, host="a").encode()
    with pytest.raises(TokenRefused, match="is for host a, not for b"):
        tokens.redeem(token, "b", "key", NOW)
    tokens.redeem(token, "a", "key", NOW)


def test_a_guessed_secret_is_refused(tokens: Tokens) -> None:
    token = tokens.issue(NOW)
    other = Tokens(Space(MemoryStore(), "tokens"), PIN, DOMAIN).issue(NOW)
    forged = type(token)(token.id, other.secret, PIN, DOMAIN)
    for unknown in (forged, other):
        with pytest.raises(TokenRefused, match="is unknown"):
            tokens.redeem(unknown.encode(), "a", "key", NOW)
    tokens.redeem(token.encode(), "a", "key", NOW)


@pytest.mark.parametrize(("pin", "domain"), [(bytes([1]) * 32, DOMAIN), (PIN, TrustDomain("else.where"))])
def test_a_token_of_another_mesh_is_refused(tokens: Tokens, pin: bytes, domain: TrustDomain) -> None:
    foreign = Tokens(Space(MemoryStore(), "tokens"), pin, domain).issue(NOW)
    with pytest.raises(TokenRefused, match="belongs to another mesh"):
        tokens.redeem(foreign.encode(), "a", "key", NOW)


def test_what_is_no_token_is_refused_with_its_reason(tokens: Tokens) -> None:
    with pytest.raises(TokenRefused, match="this is no join token"):
        tokens.redeem("hello", "a", "key", NOW)


def test_the_store_does_not_hold_the_secret(tokens: Tokens, store: MemoryStore) -> None:
    token = tokens.issue(NOW)
    (record,) = store.records("tokens")
    assert token.secret.reveal() not in record.value
    assert token.secret.reveal().hex().encode() not in record.value
    assert token.encode().encode() not in record.value


def test_of_many_hosts_at_the_same_moment_one_gets_in(tokens: Tokens) -> None:
    token = tokens.issue(NOW).encode()

    def join(host: str) -> bool:
        try:
            tokens.redeem(token, host, host, NOW)
        except TokenRefused:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(join, (f"h{n}" for n in range(32)))) == 1


def test_tokens_are_listed_and_revoked(tokens: Tokens) -> None:
    first, second = tokens.issue(NOW), tokens.issue(NOW + timedelta(seconds=1), host="b")
    tokens.redeem(first.encode(), "a", "key", NOW)
    assert [(t.id, t.host, t.used_by) for t in tokens.list()] == [(first.id, "", "a"), (second.id, "b", "")]
    assert tokens.list()[0].expires == NOW + timedelta(hours=1)
    assert tokens.revoke(second.id)
    assert not tokens.revoke(second.id)
    with pytest.raises(TokenRefused, match="is unknown"):
        tokens.redeem(second.encode(), "b", "key", NOW)


def test_old_tokens_are_forgotten(tokens: Tokens) -> None:
    tokens.issue(NOW)
    tokens.issue(NOW + KEPT + timedelta(hours=1, seconds=1))
    assert len(tokens.list()) == 1


def test_there_is_a_limit(tokens: Tokens, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 2)
    tokens.issue(NOW)
    tokens.issue(NOW)
    with pytest.raises(AuthorityError, match="2 join tokens"):
        tokens.issue(NOW)


@pytest.mark.parametrize("ttl", [timedelta(0), timedelta(seconds=-1), timedelta(days=8)])
def test_the_time_is_limited(tokens: Tokens, ttl: timedelta) -> None:
    with pytest.raises(ValueError, match="a join token lives"):
        tokens.issue(NOW, ttl)
