"""One fleet for all cases of a worker."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.simulation.fleet import Fleet


@pytest.fixture(scope="session")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """The loop of the fleet: it stands still between cases, and Envoys wait."""
    made = asyncio.new_event_loop()
    yield made
    made.run_until_complete(made.shutdown_asyncgens())
    made.close()


@pytest.fixture(scope="session")
def fleet(loop: asyncio.AbstractEventLoop) -> Iterator[Fleet]:
    with tempfile.TemporaryDirectory(prefix="retia-", dir=os.environ.get("TMPDIR", "/tmp")) as folder:
        made = Fleet(Path(folder))
        loop.run_until_complete(made.open())
        try:
            yield made
        finally:
            loop.run_until_complete(made.close())
