"""Counters in a real Redis: shared, kept, and honest when they are away."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from retia.model.limit import Counted
from retia.ratelimit.counting import Hit, StoreError, Verdict
from retia.ratelimit.redis_store import RedisStore
from tests.support.waiting import until

SERVER = shutil.which("redis-server")
pytestmark = [
    pytest.mark.skipif(SERVER is None, reason="redis-server is not installed (scripts/test-packages)"),
]


class Redis:
    """A server of its own, on a unix socket."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "redis.sock"
        self.url = f"unix://{self.path}"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        self._launch()
        await until(self._listens)

    def _listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as sock:
            return sock.connect_ex(str(self.path)) == 0

    def _launch(self) -> None:
        options = ["--port", "0", "--unixsocket", str(self.path), "--save", "", "--dir", str(self._folder)]
        self._process = subprocess.Popen([str(SERVER), *options], stdout=subprocess.DEVNULL)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None
            self.path.unlink(missing_ok=True)


@pytest.fixture
async def redis(tmp_path: Path) -> AsyncIterator[Redis]:
    server = Redis(tmp_path)
    await server.start()
    yield server
    server.stop()


def hit(amount: int = 10, *values: str, name: str = "default/shop/all", shadow: bool = False) -> Hit:
    return Hit(Counted(name, amount, 3600, shadow), values)


async def overs(store: RedisStore, times: int, *hits: Hit) -> list[tuple[bool, ...]]:
    return [tuple(v.over for v in await store.take(hits)) for _ in range(times)]


async def test_several_services_count_together(redis: Redis) -> None:
    one, other = RedisStore(redis.url, 5), RedisStore(redis.url, 5)
    try:

        async def ask(store: RedisStore) -> list[Verdict]:
            return [(await store.take([hit(25)]))[0] for _ in range(30)]

        said = [each for part in await asyncio.gather(ask(one), ask(other)) for each in part]
        assert sum(not each.over for each in said) == 25
        assert said[-1].reset_s > 0
    finally:
        await one.close()
        await other.close()


async def test_another_service_goes_on_where_one_ended(redis: Redis) -> None:
    first = RedisStore(redis.url, 5)
    await overs(first, 2, hit(3))
    await first.close()
    second = RedisStore(redis.url, 5)
    try:
        assert await overs(second, 2, hit(3)) == [(False,), (True,)]
    finally:
        await second.close()


async def test_limits_of_one_request_count_together_or_not_at_all(redis: Redis) -> None:
    store = RedisStore(redis.url, 5)
    narrow, wide = hit(1, name="default/shop/narrow"), hit(10, name="default/shop/wide")
    try:
        assert await overs(store, 3, narrow, wide) == [(False, False), (True, False), (True, False)]
        assert (await store.take([wide]))[0].remaining == 8
    finally:
        await store.close()


async def test_shadow_and_values(redis: Redis) -> None:
    store = RedisStore(redis.url, 5)
    try:
        shadow, other = hit(1, shadow=True), hit(10, "ann", name="default/shop/user")
        assert await overs(store, 2, shadow, other) == [(False, False), (True, False)]
        assert (await store.take([other]))[0].remaining == 7
        assert (await store.take([hit(10, "bob", name="default/shop/user")]))[0].remaining == 9
    finally:
        await store.close()


async def test_counters_lapse(redis: Redis) -> None:
    store = RedisStore(redis.url, 5)
    try:
        await store.take([hit(10)])
        keys = await store._client.keys("retia:limit:*")
        assert keys == [b"retia:limit:default/shop/all|3600"]
        assert 3600 < await store._client.ttl(keys[0]) <= 7200
    finally:
        await store.close()


async def test_says_that_redis_is_away_and_comes_back_with_it(redis: Redis) -> None:
    store = RedisStore(redis.url, 5)
    try:
        await store.take([hit(10)])
        redis.stop()
        with pytest.raises(StoreError, match="Redis"):
            await store.take([hit(10)])
        await redis.start()
        assert (await store.take([hit(10)]))[0].remaining == 9
    finally:
        await store.close()


def test_an_address_that_is_none() -> None:
    with pytest.raises(StoreError, match="--redis"):
        RedisStore("http://somewhere")
