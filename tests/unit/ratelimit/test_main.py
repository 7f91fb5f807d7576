"""The counting service's arguments, and its life."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from envoy.service.ratelimit.v3 import rls_pb2
from grpclib.client import Channel, UnaryUnaryMethod

from retia.ratelimit.main import Settings, StartError, parse, serve
from retia.ratelimit.service import PATH
from tests.support.waiting import until


def test_defaults() -> None:
    assert parse([], {}) == Settings("127.0.0.1", 8081)


def test_everything_may_be_said() -> None:
    arguments = ["--listen", "[::1]:99", "--redis", "redis://a", "--metrics-port", "9102"]
    assert parse(arguments, {}) == Settings("::1", 99, metrics_port=9102, redis="redis://a")
    assert parse(["--listen", "unix:/x/y"], {}).socket_path == "/x/y"
    assert parse([], {"RETIA_RATELIMIT_REDIS": "redis://b"}).redis == "redis://b"


@pytest.mark.parametrize(
    "arguments",
    [["--listen", "here"], ["--listen", ":0"], ["--listen", "a:70000"], ["--metrics-port", "70000"]],
)
def test_what_cannot_be(arguments: list[str]) -> None:
    with pytest.raises(StartError):
        parse(arguments, {})


async def test_it_answers_until_it_is_stopped(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    path.touch()  # of an earlier run
    stopped = asyncio.Event()
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        serving = group.create_task(serve(Settings(socket_path=str(path)), stopped), name="serve")
        await until(path.is_socket)
        channel = Channel(path=str(path))
        try:
            ask = UnaryUnaryMethod(channel, PATH, rls_pb2.RateLimitRequest, rls_pb2.RateLimitResponse)
            question = rls_pb2.RateLimitRequest(domain="retia")
            question.descriptors.add().entries.add(key="retia.limit", value="a/b/c|1/60")
            answers = [await ask(question) for _ in range(2)]
        finally:
            channel.close()
        stopped.set()
        await serving
    assert [answer.overall_code for answer in answers] == [1, 2]


async def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="nowhere"):
        await serve(Settings(socket_path=str(tmp_path / "nowhere" / "s.sock")), asyncio.Event())
