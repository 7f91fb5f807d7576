"""A program is let in when every listener that its connections go to is open."""

from __future__ import annotations

import asyncio
from pathlib import Path

from retia._generated import agent_pb2 as pb
from retia.agent import envoy
from retia.agent.envoy import EnvoyError
from retia.api.local import PortSpec
from retia.cli.tour.stage import free_port
from retia.model.resource import Name, TypeUrl
from tests.integration.agent.fakes import FakeController
from tests.integration.agent.hosts import AgentUnderTest, Program, get
from tests.support.waiting import until

PROXY = "default/web"
INBOUND = Name(TypeUrl.LISTENER, "inbound")


async def is_live(agent: AgentUnderTest) -> bool:
    for proxy in await agent.proxies():
        try:
            return (await envoy.ask(Path(proxy.admin_path), "/ready")).status == 200
        except EnvoyError:
            return False
    return False


async def test_a_part_of_the_listeners_is_not_enough(
    controller: FakeController, agent: AgentUnderTest
) -> None:
    """The proxy says that it is up once it has dealt with the first answer, whatever is in it."""
    controller.silent = True
    ports = (PortSpec(number=9080, app_port=free_port(), protocol="http"),)
    with Program("0") as program:
        launch = asyncio.create_task(agent.launch(program.pid, service="web", name="web", ports=ports))
        await controller.until(lambda: PROXY in controller.proxies and PROXY in controller.workloads)
        part = [INBOUND, Name(TypeUrl.CLUSTER, "inbound|9080||")]
        resources = [controller.resource_message(PROXY, name) for name in part]
        controller.send(pb.ControllerMessage(resources=pb.Resources(proxy=PROXY, resources=resources)))
        await controller.until(lambda: (PROXY, INBOUND) in controller.statuses)
        await until(lambda: is_live(agent))
        done, _ = await asyncio.wait([launch], timeout=0.5)
        assert not done, "it would call a listener that isn't there"

        controller.silent = False
        controller.update()
        launched = await launch
        answer = await get(launched.env["http_proxy"], "http://nobody:9080/")
        assert answer.status_code >= 400, "an answer, not a refused connection"
