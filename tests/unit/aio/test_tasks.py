from __future__ import annotations

import asyncio

from retia.aio.tasks import Wake, every, stop


async def test_a_bell_pulled_twice_rings_once() -> None:
    wake = Wake()
    wake.ring()
    wake.ring()
    assert await wake.wait(timeout_s=1)
    assert not await wake.wait(timeout_s=0)


async def test_a_failure_does_not_end_a_loop() -> None:
    runs = 0
    errors: list[str] = []
    enough = asyncio.Event()

    async def action() -> None:
        nonlocal runs
        runs += 1
        if runs == 3:
            enough.set()
        raise ValueError(str(runs))

    task = asyncio.create_task(every(0.001, action, lambda e: errors.append(str(e))))
    async with asyncio.timeout(5):
        await enough.wait()
    await stop(task)
    assert errors[:3] == ["1", "2", "3"]
    assert task.cancelled()
