"""The main path without privileges: join, launch under explicit capture, call through two real Envoys."""

from __future__ import annotations

from retia.api.local import PortSpec
from retia.cli.tour.stage import free_port
from tests.integration.agent.fakes import FakeController
from tests.integration.agent.hosts import AgentUnderTest, Program, get
from tests.support.waiting import until


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

    async def no_proxies() -> bool:
        return not await agent.proxies()

    await until(no_proxies)
