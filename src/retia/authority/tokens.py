"""Join tokens: issued, redeemed once, expired.

Of a token's secret only SHA-256 is kept: the secret is 192 random bits, so no slow hash is needed, and a
stolen store lets nobody in. A token is redeemed by compare-and-swap, so that of two hosts that use it at
the same moment one is refused, also with several controllers.

An answer to a join may be lost on its way. The same host with the same key may therefore repeat the join with
the same token until it expires; nobody else gains by that, because the certificate is useless without the
key.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

from retia.authority.errors import AuthorityError, TokenRefused
from retia.identity.spiffe import TrustDomain
from retia.identity.token import ID_BYTES, SECRET_BYTES, JoinToken, TokenError, make_token, parse_token

DEFAULT_TTL: Final = timedelta(hours=1)
LONGEST_TTL: Final = timedelta(days=7)
KEPT: Final = timedelta(days=1)
"""How long a used or expired token is remembered, to be able to say what is wrong with it."""
MOST: Final = 1000
"""Tokens at a time; arbitrary."""
_ATTEMPTS: Final = 5


class Space(Protocol):
    """Where the records are kept (:class:`retia.sources.space.Space`)."""

    def read(self, key: str) -> tuple[bytes, int] | None:
        """Value and revision."""

    def items(self) -> Iterable[tuple[str, bytes, int]]:
        """Key, value and revision of all records."""

    def compare_and_set(self, key: str, value: bytes | None, expected: int) -> bool:
        """Writes (``None``: removes) if the record is at that revision (0: absent); whether it was."""


@dataclass(frozen=True, slots=True)
class TokenInfo:
    """What is known of a token; nothing secret."""

    id: str
    created: datetime
    expires: datetime
    host: str = ""
    """The only host that may use it; empty: any."""
    used_by: str = ""


class Tokens:
    """The tokens of one authority. Safe to call from several threads."""

    def __init__(self, space: Space, fingerprint: bytes, trust_domain: TrustDomain) -> None:
        self._space = space
        self._fingerprint = fingerprint
        self._trust_domain = trust_domain

    def issue(self, now: datetime, ttl: timedelta = DEFAULT_TTL, host: str = "") -> JoinToken:
        """A new token for any host, or only for ``host``, valid for ``ttl`` (up to a week; in doubt an hour).

        Raises ``ValueError`` for the time, AuthorityError when there are too many tokens.
        """
        if not timedelta(0) < ttl <= LONGEST_TTL:
            raise ValueError(
                f"a join token lives {ttl.total_seconds():g}s; more than 0s and at most 7 days are allowed"
            )
        if self.purge(now) >= MOST:
            raise AuthorityError(f"there are {MOST} join tokens; wait until some expire, or revoke them")
        token = make_token(
            secrets.token_bytes(ID_BYTES + SECRET_BYTES), self._fingerprint, self._trust_domain
        )
        record = {
            "hash": _hash(token),
            "created": now.timestamp(),
            "expires": (now + ttl).timestamp(),
            "host": host,
            "used_by": "",
            "key": "",
        }
        if not self._space.compare_and_set(token.id, _encode(record), 0):
            raise AuthorityError("two join tokens with one id; try again")
        return token

    def redeem(self, text: str, host: str, key_hash: str, now: datetime, *, alive: bool = False) -> None:
        """Lets ``host`` in, once. ``key_hash`` is the hash of the public key in its signing request (see
        :func:`retia.authority.keys.public_hash`), whose signature has been checked before. ``alive``: a host
        of that id is in the mesh at this moment, so only a token made for it lets another in its place.

        Raises :class:`~retia.authority.errors.TokenRefused`, whose message may be sent to the host.
        """
        token = self._parsed(text)
        for _ in range(_ATTEMPTS):
            found = self._space.read(token.id)
            record = json.loads(found[0]) if found else None
            if record is None or found is None or not hmac.compare_digest(record["hash"], _hash(token)):
                raise TokenRefused(
                    "the join token is unknown (mistyped, revoked, or long expired); make a new one with "
                    "'retia token create'"
                )
            if self._repeated(record, host, key_hash, now):
                return
            if alive and record["host"] != host:
                raise TokenRefused(
                    f"host {host} is in the mesh already, and alive; choose another name with --host, or, to "
                    f"replace it, make a token with 'retia token create --host {host}'"
                )
            record.update(used_by=host, key=key_hash)
            if self._space.compare_and_set(token.id, _encode(record), found[1]):
                return
        raise TokenRefused("the join token is being used by several hosts at once; make one for each")

    def list(self) -> tuple[TokenInfo, ...]:
        """All tokens that are remembered, the oldest first."""
        found = (_info(key, json.loads(value)) for key, value, _ in self._space.items())
        return tuple(sorted(found, key=lambda t: (t.created, t.id)))

    def revoke(self, id: str) -> bool:  # noqa: A002 - the word of the token itself
        """Forgets a token, so that it lets nobody in; whether there was one."""
        while found := self._space.read(id):
            if self._space.compare_and_set(id, None, found[1]):
                return True
        return False

    def purge(self, now: datetime) -> int:
        """Forgets tokens that expired a day ago; returns how many are left."""
        left = 0
        for key, value, revision in tuple(self._space.items()):
            if _info(key, json.loads(value)).expires + KEPT < now:
                self._space.compare_and_set(key, None, revision)
            else:
                left += 1
        return left

    def _parsed(self, text: str) -> JoinToken:
        try:
            token = parse_token(text)
        except TokenError as error:
            raise TokenRefused(str(error)) from error
        if token.trust_domain != self._trust_domain or token.fingerprint != self._fingerprint:
            raise TokenRefused(
                f"the join token belongs to another mesh (trust domain {token.trust_domain}); this one is "
                f"{self._trust_domain}"
            )
        return token

    @staticmethod
    def _repeated(record: dict[str, Any], host: str, key_hash: str, now: datetime) -> bool:
        """Whether this use repeats the one that was granted; raises where it may not be granted at all."""
        if now.timestamp() >= record["expires"]:
            at = datetime.fromtimestamp(record["expires"], UTC)
            raise TokenRefused(
                f"the join token expired at {at:%F %T} UTC; make a new one with 'retia token create'"
            )
        if record["host"] not in ("", host):
            raise TokenRefused(f"the join token is for host {record['host']}, not for {host}")
        if not record["used_by"]:
            return False
        if record["used_by"] == host and hmac.compare_digest(record["key"], key_hash):
            return True
        raise TokenRefused(
            f"the join token was used by host {record['used_by']} already; make one for each host with "
            "'retia token create'"
        )


def _hash(token: JoinToken) -> str:
    return hashlib.sha256(token.secret.reveal()).hexdigest()


def _encode(record: dict[str, Any]) -> bytes:
    return json.dumps(record, sort_keys=True).encode()


def _info(key: str, record: dict[str, Any]) -> TokenInfo:
    return TokenInfo(
        id=key,
        created=datetime.fromtimestamp(record["created"], UTC),
        expires=datetime.fromtimestamp(record["expires"], UTC),
        host=record["host"],
        used_by=record["used_by"],
    )
