"""Tasks with parents, and loops that end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress


async def every(
    period_s: float, action: Callable[[], Awaitable[None]], on_error: Callable[[Exception], None]
) -> None:
    """Run ``action`` after each ``period_s`` seconds until cancelled. What it raises goes to ``on_error``:
    one failure doesn't end the loop."""
    while True:
        await asyncio.sleep(period_s)
        try:
            await action()
        except Exception as error:  # noqa: BLE001 - handed on
            on_error(error)


class Wake:
    """A bell: rings once however often it was pulled."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def ring(self) -> None:
        """Wake whoever waits, or the next who will."""
        self._event.set()

    async def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for a ring; false: ``timeout_s`` passed without one."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._event.wait()
        rang = self._event.is_set()
        self._event.clear()
        return rang


async def stop(*tasks: asyncio.Task[object]) -> None:
    """Cancel tasks and wait until they are over; their errors are not raised."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
