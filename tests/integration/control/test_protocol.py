"""Agents of the versions before and after this one, over real connections."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from retia._generated import agent_pb2 as pb
from retia.control.session import PROTOCOL
from retia.model.resource import TypeUrl
from tests.support.protocol import with_unknown_field
from tests.support.waiting import until

if TYPE_CHECKING:
    from tests.integration.control.conftest import Agent, RunningController

REVIEWS = "reviews.default.svc.cluster.local"


@pytest.mark.parametrize("protocol", [0, PROTOCOL - 1, PROTOCOL, PROTOCOL + 1, PROTOCOL + 100])
async def test_the_lower_of_both_versions_is_spoken(
    controller: RunningController, agent: Agent, protocol: int
) -> None:
    await agent.disconnect()
    agent.hello.protocol = protocol
    await agent.connect()
    assert agent.welcome.protocol == min(protocol or 1, PROTOCOL)
    await works(agent)
    (host,) = (await controller.api("GET", "/v1/hosts"))["items"]
    assert host["lease"] == "valid"


async def works(agent: Agent) -> None:
    await agent.run_workload("reviews-0", "reviews")
    await until(lambda: REVIEWS in agent.names)
    await until(lambda: "inbound" in agent.has("reviews-0", TypeUrl.LISTENER))
    await agent.subscribe("reviews-0", TypeUrl.VIRTUAL_HOST, "9080/reviews:9080")
    await until(lambda: bool(agent.has("reviews-0", TypeUrl.ENDPOINTS)))


async def test_what_a_newer_agent_adds_is_passed_over(agent: Agent) -> None:
    await agent.disconnect()
    agent.hello = with_unknown_field(agent.hello)
    agent.hello.protocol = PROTOCOL + 1
    await agent.connect()
    # A message of a kind that is unknown here, and known messages with more in them.
    await agent._stream.send_message(with_unknown_field(pb.AgentMessage()))
    told: Any = with_unknown_field(agent.workload("ratings-0", "ratings", n=2))
    await agent.send(workload=with_unknown_field(pb.WorkloadUpdate(workload=told)))
    subscribe = pb.Subscribe(proxy="default/ratings-0", type_url="type.example/of.a.Later.Time", names=["x"])
    await agent.send(subscribe=subscribe)
    learned = pb.Learned(
        proxy="default/ratings-0", names=[pb.Ref(type_url="type.example/of.a.Later.Time", name="x")]
    )
    await agent.send(learned=learned)
    await works(agent)
    assert "ratings.default.svc.cluster.local" in agent.names
