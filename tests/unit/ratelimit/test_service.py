from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpclib.const
import pytest
from envoy.service.ratelimit.v3 import rls_pb2
from grpclib.exceptions import GRPCError

from retia.aio.clock import ManualClock
from retia.ratelimit.counting import Hit, StoreError, Verdict
from retia.ratelimit.memory import MemoryStore
from retia.ratelimit.service import Service

OK = rls_pb2.RateLimitResponse.OK
OVER = rls_pb2.RateLimitResponse.OVER_LIMIT
LIMIT = "default/shop/per-user|2/60"


@pytest.fixture
def service() -> Service:
    return Service(MemoryStore(ManualClock()))


def question(*descriptors: Sequence[tuple[str, str]], domain: str = "retia", hits: int = 0) -> Any:
    asked = rls_pb2.RateLimitRequest(domain=domain, hits_addend=hits)
    for entries in descriptors:
        descriptor = asked.descriptors.add()
        for key, value in entries:
            descriptor.entries.add(key=key, value=value)
    return asked


async def ask(service: Service, asked: Any) -> Any:
    return rls_pb2.RateLimitResponse.FromString(await service.answer(asked.SerializeToString()))


def user(name: str, limit: str = LIMIT) -> list[tuple[str, str]]:
    return [("retia.limit", limit), ("header:x-user", name)]


async def test_refuses_beyond_the_limit_that_the_question_says(service: Service) -> None:
    codes = [(await ask(service, question(user("ann")))).overall_code for _ in range(3)]
    assert codes == [OK, OK, OVER]
    assert (await ask(service, question(user("bob")))).overall_code == OK


async def test_tells_what_is_left(service: Service) -> None:
    said = await ask(service, question(user("ann")))
    status = said.statuses[0]
    assert (status.current_limit.requests_per_unit, status.limit_remaining) == (2, 1)
    assert status.current_limit.unit == rls_pb2.RateLimitResponse.RateLimit.MINUTE
    headers = {h.key: h.value for h in said.response_headers_to_add}
    assert headers == {"ratelimit-policy": '"per-user";q=2;w=60', "ratelimit": '"per-user";r=1;t=0'}


async def test_tells_when_to_come_again(service: Service) -> None:
    said = await ask(service, question(user("ann"), hits=3))
    headers = {h.key: h.value for h in said.response_headers_to_add}
    assert said.overall_code == OVER
    assert int(headers["retry-after"]) >= 0


async def test_a_quiet_limit_tells_nothing(service: Service) -> None:
    assert not (await ask(service, question(user("ann", LIMIT + "|quiet")))).response_headers_to_add


async def test_a_shadow_refuses_nothing_and_is_counted(service: Service) -> None:
    for _ in range(5):
        assert (await ask(service, question(user("ann", LIMIT + "|shadow")))).overall_code == OK
    assert service.counters["shadow_over_limit"] == 3


async def test_each_descriptor_has_its_status(service: Service) -> None:
    foreign = [("generic_key", "x")]
    said = await ask(service, question(foreign, user("ann"), foreign))
    assert [status.code for status in said.statuses] == [OK, OK, OK]
    assert said.statuses[1].current_limit.requests_per_unit == 2


async def test_the_condition_is_no_value(service: Service) -> None:
    with_condition = [("retia.limit", LIMIT), ("retia.when", "on"), ("header:x-user", "ann")]
    await ask(service, question(user("ann"), hits=2))
    assert (await ask(service, question(with_condition))).overall_code == OVER


async def test_other_domains_are_let_through(service: Service) -> None:
    said = await ask(service, question(user("ann"), domain="other", hits=9))
    assert (said.overall_code, len(said.statuses)) == (OK, 1)


@pytest.mark.parametrize("text", ["", "x", "a|b/c", "a|0/60", "a|1/0", "a|1/60|loud"])
async def test_a_limit_that_cannot_be_read_is_refused(service: Service, text: str) -> None:
    with pytest.raises(GRPCError) as raised:
        await ask(service, question(user("ann", text)))
    assert raised.value.status is grpclib.const.Status.INVALID_ARGUMENT


async def test_says_that_counters_are_away() -> None:
    class Away:
        async def take(self, hits: Sequence[Hit]) -> tuple[Verdict, ...]:
            raise StoreError("Redis did not answer within 0.08 s")

        async def close(self) -> None:
            return

    service = Service(Away())
    with pytest.raises(GRPCError) as raised:
        await ask(service, question(user("ann")))
    assert raised.value.status is grpclib.const.Status.UNAVAILABLE
    assert service.counters["failures"] == 1
