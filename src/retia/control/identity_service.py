"""Signing for hosts and their workloads: ``retia.agent.v1.Identity``.

A host joins with a token and no certificate; from then on its certificate says who it is. A workload's
certificate is signed only for a workload that is registered on the very host that asks, with the namespace
and service account of its registration: what the request says of itself plays no part.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import structlog
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from retia._generated import agent_pb2 as pb
from retia.aio.clock import Clock
from retia.aio.grpc import Method, receive_bytes
from retia.authority.authority import Authority, Signed
from retia.authority.errors import AuthorityError, TokenRefused
from retia.authority.keys import public_hash
from retia.authority.requests import read_request
from retia.authority.tokens import Tokens
from retia.control.convert import Message
from retia.control.registry import Registry
from retia.control.session import host_of
from retia.identity.spiffe import IdentityError, parse_host_id
from retia.sources.errors import StoreError

REQUEST_BYTES = 64 * 1024
"""Anybody may send a join: it gets no more memory than a request needs."""

REGISTRATION_TIMEOUT_S = 0.5

_log = structlog.get_logger("retia.control.identity")


class IdentityService:
    """The three calls."""

    def __init__(self, authority: Authority, tokens: Tokens, registry: Registry, clock: Clock) -> None:
        self._authority = authority
        self._tokens = tokens
        self._registry = registry
        self._clock = clock
        self.signed = 0

    @property
    def methods(self) -> tuple[Method, ...]:
        base = "/retia.agent.v1.Identity/"
        return (
            Method(base + "Join", self._join, bytes, bytes),
            Method(base + "Renew", self._renew, bytes, bytes),
            Method(base + "SignWorkload", self._sign_workload, bytes, bytes),
        )

    async def _join(self, carrier: Any) -> None:
        request = pb.JoinRequest.FromString(await self._request(carrier))
        now = self._now()
        try:
            host = parse_host_id(request.host)
            key_hash = public_hash(read_request(request.csr_der))
            alive = self._registry.leases.state(host, self._clock.monotonic()) == "valid"
            self._tokens.redeem(request.token, host, key_hash, now, alive=alive)
            signed = self._authority.sign_host(request.csr_der, host, now)
        except TokenRefused as error:
            _log.warning("a join is refused", host=request.host, reason=str(error))
            raise GRPCError(Status.PERMISSION_DENIED, str(error)) from error
        except (AuthorityError, IdentityError) as error:
            raise GRPCError(Status.INVALID_ARGUMENT, str(error)) from error
        except StoreError as error:
            raise GRPCError(Status.UNAVAILABLE, f"the token can't be redeemed now: {error}") from error
        _log.info("a host has joined", host=host)
        await self._reply(carrier, signed)

    async def _renew(self, carrier: Any) -> None:
        host = host_of(carrier.peer, str(self._authority.trust_domain))
        request = pb.RenewRequest.FromString(await self._request(carrier))
        self._note_skew(host, request.agent_time)
        try:
            signed = self._authority.sign_host(request.csr_der, host, self._now())
        except (AuthorityError, IdentityError) as error:
            raise GRPCError(Status.INVALID_ARGUMENT, str(error)) from error
        if host in self._registry.hosts:
            self._registry.hosts[host].certificate_expiry = signed.life.not_after.timestamp()
        await self._reply(carrier, signed)

    async def _sign_workload(self, carrier: Any) -> None:
        host = host_of(carrier.peer, str(self._authority.trust_domain))
        request = pb.SignWorkloadRequest.FromString(await self._request(carrier))
        self._note_skew(host, request.agent_time)
        # The registration goes by the session and this call by itself: the call may be the faster of the two.
        await self._registry.registered(request.workload, REGISTRATION_TIMEOUT_S)
        namespace, account = self._account_of(host, request.workload)
        try:
            signed = self._authority.sign_workload(request.csr_der, namespace, account, self._now())
        except (AuthorityError, IdentityError) as error:
            raise GRPCError(Status.INVALID_ARGUMENT, str(error)) from error
        await self._reply(carrier, signed)

    def _account_of(self, host: str, workload_id: str) -> tuple[str, str]:
        """The namespace and service account that a host may have signed for that workload."""
        workload = self._registry.workload(workload_id)
        if workload is None or workload.host != host:
            _log.warning("a certificate is refused", host=host, workload=workload_id)
            raise GRPCError(
                Status.PERMISSION_DENIED, f"workload {workload_id!r} is not registered on host {host}"
            )
        return workload.namespace, workload.service_account

    # -- helpers -------------------------------------------------------------------------------------------

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.now(), UTC)

    def _note_skew(self, host: str, agent_time: int) -> None:
        if agent_time and host in self._registry.hosts:
            self._registry.hosts[host].clock_skew_s = agent_time - self._clock.now()

    @staticmethod
    async def _request(carrier: Any) -> bytes:
        return await receive_bytes(carrier, REQUEST_BYTES) or b""

    async def _reply(self, carrier: Any, signed: Signed) -> None:
        self.signed += 1
        await carrier.send_message(self._reply_of(signed).SerializeToString())

    def _reply_of(self, signed: Signed) -> Message:
        return pb.SignedReply(
            chain_pem=signed.chain_pem,
            bundle_pem=self._authority.bundle_pem,
            controller_time=int(self._clock.now()),
            trust_domain=str(self._authority.trust_domain),
        )
