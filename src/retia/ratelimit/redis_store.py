"""Counters in Redis: for several counting services, and so that a restart forgets nothing.

One script counts all hits of a request in one step, by Redis' own clock, so that services whose clocks
differ agree. A counter is a hash of its window's number and the two counts, and lapses by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from retia.ratelimit.counting import Hit, StoreError, Verdict, verdict

TIMEOUT_S = 0.08
"""For one question; less than a proxy waits, so that it hears what went wrong."""
CONNECT_TIMEOUT_S = 1.0
CONNECTIONS = 32
PREFIX = "retia:limit:"

_SCRIPT = """
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local found = {}
local refused = false
for i, key in ipairs(KEYS) do
  local amount, most, length, shadow = unpack(ARGV, (i - 1) * 4 + 1, i * 4)
  amount, most, length = tonumber(amount), tonumber(most), tonumber(length)
  local window = math.floor(now / length)
  local stored = redis.call('HMGET', key, 'w', 'c', 'b')
  local w, current, before = tonumber(stored[1]), tonumber(stored[2]) or 0, tonumber(stored[3]) or 0
  if w ~= nil and w < window then
    before = (w == window - 1) and current or 0
    current = 0
  end
  local left = 1 - (now % length) / length
  local over = current + before * left + amount > most
  if over and shadow == '0' then refused = true end
  found[i] = {window, current, before, over, amount, length}
end
local answer = {string.format('%.6f', now)}
for i, key in ipairs(KEYS) do
  local each = found[i]
  if not refused and not each[4] then
    redis.call('HSET', key, 'w', each[1], 'c', each[2] + each[5], 'b', each[3])
    redis.call('EXPIRE', key, math.ceil(each[6] * 2))
  end
  answer[#answer + 1] = each[2]
  answer[#answer + 1] = each[3]
  answer[#answer + 1] = each[4] and 1 or 0
end
return answer
"""


class RedisStore:
    """``url`` as redis-py reads it: ``redis://[:password@]host:6379/0``, ``rediss://`` for TLS, ``unix://``."""

    def __init__(self, url: str, timeout_s: float = TIMEOUT_S) -> None:
        try:
            from redis import asyncio as client
            from redis.exceptions import RedisError
        except ImportError as error:
            raise StoreError("the package redis is not installed: pip install 'retia[redis]'") from error
        self._error: type[Exception] = RedisError
        self._timeout_s = timeout_s
        try:
            self._client: Any = client.Redis.from_url(
                url,
                max_connections=CONNECTIONS,
                socket_connect_timeout=CONNECT_TIMEOUT_S,
                socket_timeout=CONNECT_TIMEOUT_S,
                retry_on_timeout=False,
            )
        except ValueError as error:
            raise StoreError(f"--redis: {error}") from error
        self._script = self._client.register_script(_SCRIPT)

    async def take(self, hits: Sequence[Hit]) -> tuple[Verdict, ...]:
        keys = [PREFIX + hit.counter for hit in hits]
        arguments: list[int] = []
        for hit in hits:
            limit = hit.limit
            arguments += [hit.amount, limit.amount, limit.window_s, int(limit.shadow)]
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await self._script(keys=keys, args=arguments)
        except TimeoutError as error:
            raise StoreError(f"Redis did not answer within {self._timeout_s:g} s") from error
        except (self._error, OSError) as error:
            raise StoreError(f"Redis: {error}") from error
        now = float(answer[0])
        counts = [int(each) for each in answer[1:]]
        return tuple(
            verdict(
                hit.limit, counts[3 * i], counts[3 * i + 1], hit.amount, now, over=bool(counts[3 * i + 2])
            )
            for i, hit in enumerate(hits)
        )

    async def close(self) -> None:
        await self._client.aclose()
