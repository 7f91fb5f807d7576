"""Waiting for what happens elsewhere: bounded, and by looking, never by a fixed sleep."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any


async def until(condition: Callable[[], Any], timeout_s: float = 10.0, pause_s: float = 0.01) -> None:
    """Until ``condition()``, awaited where it can be, is true; looked at every ``pause_s``.

    Raises ``TimeoutError`` after ``timeout_s``.
    """
    async with asyncio.timeout(timeout_s):
        while True:
            result = condition()
            if await result if inspect.isawaitable(result) else result:
                return
            await asyncio.sleep(pause_s)
