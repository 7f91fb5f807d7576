"""Envoy's rate limit service (``envoy.service.ratelimit.v3``): questions in, answers out.

A question that says no limit of ours is let through: its proxy's configuration is not ours. One that says a
limit that can't be read is refused as invalid, and the proxy then does what its policy says for a service
that is away.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import grpclib.const
import structlog
from envoy.service.ratelimit.v3 import rls_pb2
from grpclib.exceptions import GRPCError

from retia.aio.grpc import Method, receive_bytes
from retia.model import limit as counting
from retia.model.limit import Counted
from retia.ratelimit.counting import Hit, Store, StoreError, Verdict

PATH = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"
QUESTION_BYTES = 64 * 1024
MOST_HITS = 128
"""Limits of one request; a policy has at most 64."""

_OK = rls_pb2.RateLimitResponse.OK
_OVER = rls_pb2.RateLimitResponse.OVER_LIMIT
_UNITS = {1: 1, 60: 2, 3600: 3, 86400: 4}
"""Lengths that have a name in Envoy's protocol; for others clients are told no length."""

_log = structlog.get_logger("retia.ratelimit")


class Service:
    """Answers proxies from a store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.counters: Counter[str] = Counter(questions=0, over_limit=0, shadow_over_limit=0, failures=0)

    @property
    def method(self) -> Method:
        """For :class:`retia.aio.grpc.Server`."""
        return Method(PATH, self._handle, bytes, bytes)

    async def _handle(self, stream: Any) -> None:
        data = await receive_bytes(stream, QUESTION_BYTES)
        if data is None:
            raise GRPCError(grpclib.const.Status.INVALID_ARGUMENT, "there is no question")
        await stream.send_message(await self.answer(data))

    async def answer(self, data: bytes) -> bytes:
        """The answer to one question. Raises ``GRPCError`` where there is none."""
        question = rls_pb2.RateLimitRequest.FromString(data)
        self.counters["questions"] += 1
        try:
            hits = tuple(_hits(question))
        except ValueError as error:
            raise GRPCError(grpclib.const.Status.INVALID_ARGUMENT, str(error)) from error
        try:
            verdicts = await self._store.take([hit for hit in hits if hit is not None])
        except StoreError as error:
            self.counters["failures"] += 1
            _log.warning("counters can't be reached", error=str(error))
            raise GRPCError(grpclib.const.Status.UNAVAILABLE, str(error)) from error
        return self._said(hits, verdicts)

    def _said(self, hits: Sequence[Hit | None], verdicts: Sequence[Verdict]) -> bytes:
        """One status for each descriptor of the question, in its order."""
        response = rls_pb2.RateLimitResponse()
        response.overall_code = _OK
        tightest: tuple[Hit, Verdict] | None = None
        left = iter(verdicts)
        for hit in hits:
            status = response.statuses.add()
            status.code = _OK
            if hit is None:
                continue
            verdict = next(left)
            if hit.limit.shadow:
                self.counters["shadow_over_limit"] += verdict.over
                continue
            _put_status(status, hit.limit, verdict)
            if verdict.over:
                response.overall_code = _OVER
            if tightest is None or _rank(verdict) < _rank(tightest[1]):
                tightest = (hit, verdict)
        self.counters["over_limit"] += response.overall_code == _OVER
        if tightest is not None and not tightest[0].limit.quiet:
            _put_headers(response, *tightest)
        data: bytes = response.SerializeToString()
        return data


def _hits(question: Any) -> Iterator[Hit | None]:
    """One for each descriptor; ``None``: not ours."""
    if len(question.descriptors) > MOST_HITS:
        raise ValueError(f"{len(question.descriptors)} descriptors; at most {MOST_HITS} are taken")
    for descriptor in question.descriptors:
        entries = descriptor.entries
        if question.domain != counting.DOMAIN or not entries or entries[0].key != counting.KEY:
            yield None
            continue
        limit = Counted.parse(entries[0].value)
        values = tuple(e.value for e in entries[1:] if e.key != counting.WHEN)
        amount = question.hits_addend or 1
        if descriptor.HasField("hits_addend"):
            amount = descriptor.hits_addend.value
        yield Hit(limit, values, amount)


def _put_status(status: Any, limit: Counted, verdict: Verdict) -> None:
    status.code = _OVER if verdict.over else _OK
    status.current_limit.name = limit.name
    status.current_limit.requests_per_unit = min(limit.amount, 2**32 - 1)
    status.current_limit.unit = _UNITS.get(limit.window_s, 0)
    status.limit_remaining = verdict.remaining
    status.duration_until_reset.seconds = verdict.reset_s


def _put_headers(response: Any, hit: Hit, verdict: Verdict) -> None:
    """The tightest limit as draft-ietf-httpapi-ratelimit-headers-10 says it."""
    limit = hit.limit
    name = limit.name.rpartition("/")[2]
    headers = [
        ("ratelimit-policy", f'"{name}";q={limit.amount};w={limit.window_s}'),
        ("ratelimit", f'"{name}";r={verdict.remaining};t={verdict.reset_s}'),
    ]
    if verdict.over:
        headers.append(("retry-after", str(verdict.reset_s)))
    for key, value in headers:
        header = response.response_headers_to_add.add()
        header.key, header.value = key, value


def _rank(verdict: Verdict) -> tuple[bool, int, int]:
    """Limits that refuse come first, then those with the least room."""
    return (not verdict.over, verdict.remaining, -verdict.reset_s)
