"""A controller and an agent for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.agent.fakes import FakeController
from tests.integration.agent.hosts import AgentUnderTest


@pytest.fixture
async def controller(tmp_path: Path) -> AsyncIterator[FakeController]:
    fake = FakeController(tmp_path)
    await fake.start()
    yield fake
    await fake.stop()


@pytest.fixture
async def agent(controller: FakeController) -> AsyncIterator[AgentUnderTest]:
    async with AgentUnderTest(controller.address, controller.token, "--capture", "explicit") as running:
        yield running
