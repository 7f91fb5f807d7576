"""The main path without privileges: join, launch under explicit capture, call through two real Envoys."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from retia.api.local import PortSpec
from tests.integration.agent.fakes import FakeController
from tests.integration.agent.hosts import AgentUnderTest, Program


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


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def get(proxy: str, url: str, timeout_s: float = 8.0) -> httpx.Response:
    async with httpx.AsyncClient(proxy=proxy, timeout=timeout_s) as client:
        return await client.get(url)


async def test_two_programs_call_each_other(controller: FakeController, agent: AgentUnderTest) -> None:
    port = free_port()
    with Program(str(port), WHO="reviews") as server, Program("1") as client:
        launched = await agent.launch(
            server.pid, service="reviews", ports=(PortSpec(number=9080, app_port=port, protocol="http"),)
        )
        assert launched.workload == "default/reviews-1"
        assert launched.capture == "explicit"
        server.go()
        caller = await agent.launch(client.pid, service="", name="curl")
        await controller.until(lambda: controller.workloads["default/reviews-1"].ports[0].listening)
        answer = await get(caller.env["http_proxy"], "http://reviews:9080/hello")
        assert (answer.status_code, answer.text) == (200, "reviews /hello")
    await controller.until(lambda: not controller.workloads)
    async with asyncio.timeout(10):
        while await agent.proxies():
            await asyncio.sleep(0.05)
