"""The host's and its workloads' identities.

A host joins once: a token proves it to the controller, and the fingerprint in the token proves the controller
to the host, before anything is said. From then on the host's own certificate opens the connection, also for
renewals. A workload's key is made here when the workload is launched, lies in ``agent/keys`` (readable by the
agent's user alone, so that a restarted agent can serve without a controller), and is handed to that
workload's own Envoy only.

Certificates are renewed before half of their life is over (:mod:`retia.identity.rotation`); an outage of the
controller shorter than the other half is not noticed.
"""

from __future__ import annotations

import asyncio
import random
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import structlog
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from retia._generated import agent_pb2 as pb
from retia.agent.paths import Paths, slug
from retia.agent.rpc import (
    CALL_TIMEOUT_S,
    RPC_ERRORS,
    Message,
    alone,
    describe,
    join_method,
    open_channel,
    renew_method,
    sign_method,
    split_address,
)
from retia.authority.certificates import fingerprint, from_pem, life_of_chain
from retia.authority.errors import AuthorityError
from retia.authority.keys import key_from_pem, key_to_pem, make_key, write_private
from retia.authority.requests import make_request
from retia.authority.tls import client_context, fetch_root, is_stranger, use_pair
from retia.identity.rotation import Life, is_due, retry_after_s, skew_problem
from retia.identity.secret import Secret
from retia.identity.spiffe import parse_trust_domain
from retia.identity.token import TokenError, parse_token

_log = structlog.get_logger("retia.agent.identity")
CHECK_S = 0.5
"""How often it is looked whether a certificate is due."""
SUSPICIOUS_S = 30.0
JOIN_KEY = "join.key"
"""The key of a join that has not succeeded yet."""


class IdentityUnavailable(Exception):  # noqa: N818
    """There is no identity and none can be had; one sentence."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate chain with its key."""

    chain_pem: bytes
    key: Secret = field(repr=False)
    life: Life = field(repr=False)
    jitter: float = 0.0
    """Drawn once per certificate: renewals of one hour's certificates do not come in one instant."""

    @classmethod
    def make(cls, chain_pem: bytes, key: Secret) -> Pair:
        """Raises ``AuthorityError`` for what is no certificate."""
        return cls(chain_pem, key, life_of_chain(chain_pem), random.random())

    @property
    def expiry(self) -> float:
        """Seconds since 1970."""
        return self.life.not_after.timestamp()

    def due(self, now: datetime) -> bool:
        return is_due(self.life, self.jitter, now)


def read_pair(certificate: Path, key: Path) -> Pair | None:
    """The pair in two files; ``None`` if it is missing. Raises ``AuthorityError`` if it is damaged."""
    try:
        chain, secret = certificate.read_bytes(), Secret(key.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise AuthorityError(f"{error.filename}: {error.strerror}") from error
    key_from_pem(secret, str(key))
    return Pair.make(chain, secret)


class HostIdentityKeeper:
    """The host's own certificate, and the trust bundle.

    ``token`` may be empty if the host has joined before.
    """

    def __init__(self, paths: Paths, host: str, controller: str, token: str) -> None:
        self._folder = paths.state
        self._host = host
        self._controller = controller
        self._token = token
        self._pair: Pair | None = None
        self._lapsed = 0.0
        """When the last certificate expired, if it has."""
        self._pending: Secret | None = None
        """The key of a join that has not succeeded yet."""
        self.patient = False
        """A controller of another mesh is waited out: there is something that would suffer from an end."""
        self.trust_domain = ""
        self.bundle_pem = b""
        self.skew_s = 0.0
        """The controller's clock minus ours, when last compared."""
        self.on_bundle: Callable[[], None] = lambda: None

    @property
    def expiry(self) -> float:
        """Seconds since 1970, in the past for one that has lapsed; 0: there was none."""
        return self._pair.expiry if self._pair else self._lapsed

    def load(self) -> bool:
        """Take what an earlier run left; whether there was something usable."""
        try:
            pair = read_pair(self._folder / "host.pem", self._folder / "host.key")
            bundle = (self._folder / "bundle.pem").read_bytes()
            domain = (self._folder / "trust-domain").read_text(encoding="ascii").strip()
        except FileNotFoundError:
            return False
        except (AuthorityError, OSError, ValueError) as error:
            _log.error("the host's certificate can't be read; the host must join again", error=str(error))
            return False
        # The bundle is good for the workloads' certificates even if the host's own has expired.
        self.bundle_pem, self.trust_domain = bundle, domain
        if pair is None or pair.life.expired(datetime.now(UTC)):
            self._lapsed = pair.expiry if pair else 0.0
            return False
        self._pair = pair
        return True

    async def ensure(self) -> None:
        """Have a certificate: the one on disk, or by joining.

        Raises :class:`IdentityUnavailable` where trying again is of no use, and one of ``RPC_ERRORS`` while
        the controller can't be reached.
        """
        if self._pair is not None and self._pair.life.expired(datetime.now(UTC)):
            self._lapsed = self._pair.expiry
            self._pair = None
        if self._pair is not None or self.load():
            if not self._joins_elsewhere():
                return
            self._pair = None
        if not self._token:
            raise IdentityUnavailable(
                "this host has not joined a mesh (or its certificate has expired): give --join TOKEN, "
                "from 'retia token create' on the controller's host"
            )
        await self._join()

    def _joins_elsewhere(self) -> bool:
        """Whether the token is for another trust domain's authority than the certificate at hand."""
        if not self._token:
            return False
        try:
            token = parse_token(self._token)
        except TokenError:
            return False
        roots = {fingerprint(c) for c in from_pem(self.bundle_pem, "the bundle")}
        return token.fingerprint not in roots

    async def _join(self) -> None:
        try:
            token = parse_token(self._token)
        except TokenError as error:
            raise IdentityUnavailable(str(error)) from error
        host, port = split_address(self._controller)
        try:
            root_pem = await fetch_root(host, port, token.fingerprint)
        except AuthorityError as error:
            raise IdentityUnavailable(str(error)) from error
        key = self._join_key()
        channel = await open_channel(self._controller, client_context(root_pem, token.trust_domain))
        try:
            request = pb.JoinRequest(
                token=self._token.strip(),
                host=self._host,
                csr_der=make_request(key_from_pem(key, JOIN_KEY)),
                agent_time=int(time.time()),
            )
            reply = await alone(join_method(channel)(request, timeout=CALL_TIMEOUT_S))
        except RPC_ERRORS as error:
            if _is_refusal(error):
                raise IdentityUnavailable(f"the controller refuses the join: {describe(error)}") from error
            raise
        finally:
            channel.close()
        self._take(reply, key)
        self._pending = None
        (self._folder / JOIN_KEY).unlink(missing_ok=True)
        _log.info("joined the mesh", host=self._host, trust_domain=self.trust_domain)

    def _join_key(self) -> Secret:
        """The key to join with: that of the last attempt, if there was one.

        The answer to a join may be lost. The token has then been used, by this host with this key, and only
        the same host with the same key may use it once more; so the key outlives the attempt, and the agent.
        """
        if self._pending is None:
            path = self._folder / JOIN_KEY
            try:
                self._pending = Secret(path.read_bytes())
                key_from_pem(self._pending, str(path))
            except (OSError, AuthorityError):
                self._pending = key_to_pem(make_key())
                self._write(JOIN_KEY, self._pending)
        return self._pending

    async def connect(self) -> Any:
        """A channel to the controller under the host's identity.

        Raises one of ``RPC_ERRORS`` while it is worth trying again, otherwise :class:`IdentityUnavailable`;
        where workloads run it is always worth it, because an end would take their proxies away.
        """
        try:
            await self.ensure()
        except IdentityUnavailable as error:
            if self.patient:
                raise ConnectionError(str(error)) from error
            raise
        assert self._pair is not None
        context = client_context(
            self.bundle_pem, parse_trust_domain(self.trust_domain), self._pair.chain_pem, self._pair.key
        )
        try:
            return await open_channel(self._controller, context)
        except ssl.SSLCertVerificationError as error:
            if self.patient or not is_stranger(error):
                raise
            raise IdentityUnavailable(
                f"this host belongs to mesh {self.trust_domain}, and the controller at {self._controller} to "
                f"another ({describe(error)}): correct --controller, or give --join TOKEN from 'retia token "
                "create' there"
            ) from error

    async def renew(self, channel: Any) -> None:
        """A new certificate over a connection under the old one. Raises one of ``RPC_ERRORS``."""
        key = make_key()
        request = pb.RenewRequest(csr_der=make_request(key), agent_time=int(time.time()))
        reply = await alone(renew_method(channel)(request, timeout=CALL_TIMEOUT_S))
        self._take(reply, key_to_pem(key))
        _log.info("renewed the host's certificate")

    def due(self, now: datetime) -> bool:
        return self._pair is not None and self._pair.due(now)

    def take_bundle(self, trust_domain: str, bundle_pem: bytes) -> None:
        """The controller told the trust bundle."""
        if not bundle_pem or (bundle_pem == self.bundle_pem and trust_domain == self.trust_domain):
            return
        self.bundle_pem = bundle_pem
        self.trust_domain = trust_domain or self.trust_domain
        self._write("bundle.pem", bundle_pem)
        self.on_bundle()

    def note_time(self, controller_time: int) -> None:
        """Compare the clocks; more than five minutes is said."""
        if controller_time <= 0:
            return
        self.skew_s = controller_time - time.time()
        problem = skew_problem(datetime.now(UTC), datetime.fromtimestamp(controller_time, UTC))
        if problem:
            _log.warning(problem)

    def _take(self, reply: Message, key: Secret) -> None:
        pair = Pair.make(reply.chain_pem, key)
        # The context refuses a pair whose halves do not belong together.
        use_pair(
            client_context(reply.bundle_pem, parse_trust_domain(reply.trust_domain)), pair.chain_pem, key
        )
        self._pair = pair
        self.trust_domain = reply.trust_domain
        changed = reply.bundle_pem != self.bundle_pem
        self.bundle_pem = reply.bundle_pem
        for name, content in (
            ("host.key", key),
            ("host.pem", pair.chain_pem),
            ("bundle.pem", self.bundle_pem),
            ("trust-domain", self.trust_domain.encode()),
        ):
            self._write(name, content)
        self.note_time(reply.controller_time)
        if changed:
            self.on_bundle()

    def _write(self, name: str, content: Secret | bytes) -> None:
        try:
            write_private(self._folder / name, content)
        except OSError as error:
            path = self._folder / name
            _log.error("can't write a part of the host's identity", path=str(path), error=error.strerror)


def _is_refusal(error: BaseException) -> bool:
    final = (Status.PERMISSION_DENIED, Status.UNAUTHENTICATED, Status.INVALID_ARGUMENT, Status.NOT_FOUND)
    return isinstance(error, GRPCError) and error.status in final


class WorkloadKeys:
    """The pairs of this host's workloads."""

    def __init__(self, paths: Paths) -> None:
        self._folder = paths.keys
        self._pairs: dict[str, Pair] = {}

    def get(self, workload: str) -> Pair | None:
        return self._pairs.get(workload)

    def load(self, workload: str) -> Pair | None:
        """Take what an earlier run left on disk; ``None`` if there is nothing usable."""
        try:
            pair = read_pair(self._path(workload, "pem"), self._path(workload, "key"))
        except AuthorityError as error:
            _log.error("a workload's certificate can't be read", workload=workload, error=str(error))
            return None
        if pair is not None:
            self._pairs[workload] = pair
        return pair

    async def sign(self, workload: str, channel: Any, timeout_s: float = CALL_TIMEOUT_S) -> Message:
        """A new key and certificate for a workload, kept here and on disk; returns the reply.

        Raises one of ``RPC_ERRORS``; ``AuthorityError`` for an unusable answer.
        """
        key = make_key()
        request = pb.SignWorkloadRequest(
            workload=workload, csr_der=make_request(key), agent_time=int(time.time())
        )
        reply = await alone(sign_method(channel)(request, timeout=timeout_s))
        pair = Pair.make(reply.chain_pem, key_to_pem(key))
        self._pairs[workload] = pair
        try:
            write_private(self._path(workload, "key"), pair.key)
            write_private(self._path(workload, "pem"), pair.chain_pem)
        except OSError as error:
            _log.error("can't write a workload's certificate", workload=workload, error=error.strerror)
        return reply

    def forget(self, workload: str) -> None:
        self._pairs.pop(workload, None)
        for kind in ("key", "pem"):
            self._path(workload, kind).unlink(missing_ok=True)

    def due(self, now: datetime) -> list[str]:
        return [workload for workload, pair in self._pairs.items() if pair.due(now)]

    def sweep(self, known: set[str]) -> None:
        """Remove files of workloads that are no more."""
        names = {f"{slug(w)}.{kind}" for w in known for kind in ("key", "pem")}
        for path in self._folder.glob("*"):
            if path.name not in names:
                path.unlink(missing_ok=True)

    def _path(self, workload: str, kind: str) -> Path:
        return self._folder / f"{slug(workload)}.{kind}"


class Renewer:
    """Renews what is due while the controller is there. ``renewed`` is called with a workload's id."""

    def __init__(
        self,
        host: HostIdentityKeeper,
        keys: WorkloadKeys,
        channel: Callable[[], Any],
        renewed: Callable[[str], None],
    ) -> None:
        self._host = host
        self._keys = keys
        self._channel = channel
        self._renewed = renewed
        self._retry: dict[str, tuple[int, float]] = {}
        """Failed attempts and when to try again (monotonic), by workload; "" is the host."""

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(CHECK_S)
            now = datetime.now(UTC)
            if self._channel() is None:
                continue
            if self._host.due(now):
                await self._attempt("", self._host.renew)
            for workload in self._keys.due(now):
                await self._attempt(workload, partial(self._keys.sign, workload))

    def _still_due(self, who: str) -> bool:
        """A fresh certificate that is due again means that the clocks differ by more than is survived."""
        pair = self._keys.get(who) if who else None
        return pair is not None and pair.due(datetime.now(UTC))

    async def _attempt(self, who: str, action: Callable[[Any], Any]) -> None:
        count, when = self._retry.get(who, (0, 0.0))
        channel = self._channel()
        if time.monotonic() < when or channel is None:
            return
        try:
            reply = await action(channel)
        except (*RPC_ERRORS, AuthorityError) as error:
            count += 1
            pause = retry_after_s(count, random.random())
            self._retry[who] = (count, time.monotonic() + pause)
            _log.warning("can't renew a certificate", workload=who or "(host)", reason=describe(error))
            return
        self._retry[who] = (0, time.monotonic() + SUSPICIOUS_S if self._still_due(who) else 0.0)
        if who:
            self._host.take_bundle(reply.trust_domain, reply.bundle_pem)
            self._host.note_time(reply.controller_time)
            self._renewed(who)
