"""Who may use the agent's socket, and what it says to nonsense."""

from __future__ import annotations

import asyncio
import grp
import json
import os
from pathlib import Path

import pytest

from retia.api.local import (
    Done,
    Launch,
    Launched,
    LocalClient,
    LocalError,
    PortSpec,
    Shutdown,
    Stop,
    UpstreamSpec,
)
from retia.cli.tour.stage import free_port
from tests.integration.agent.fakes import FakeController
from tests.integration.agent.hosts import AgentUnderTest, Program, get
from tests.support.waiting import until

NOBODY = 65534


def as_user(path: Path, groups: list[int], capture: str) -> list[str]:
    """What another user gets: fork, become it, ask to be launched, and to end the agent."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups(groups)
            os.setgid(12345)
            os.setuid(NOBODY)
            said = []
            try:
                with LocalClient(path) as client:
                    request = Launch(name="mine", capture=capture)  # type: ignore[arg-type]
                    said.append(client.call(request, Launched).capture)
                    client.call(Shutdown(), Done)
            except LocalError as error:
                said.append(error.code)
            os.write(writer, " ".join(said).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        said = pipe.read().split()
    os.waitpid(child, 0)
    return said


async def test_nonsense_is_answered(controller: FakeController, agent: AgentUnderTest) -> None:
    reader, writer = await asyncio.open_unix_connection(str(agent.home / "run" / "agent.sock"))
    lines = [b"x", b"{}", b'{"op":"nothing"}', b'{"op":"launch","ports":[{"number":0}]}', b"[1]", b"\xff\xfe"]
    for line in lines:
        writer.write(line + b"\n")
        answer = json.loads(await asyncio.wait_for(reader.readline(), 5))
        assert answer["error"]["code"] == "bad-request"
        assert "\n" not in answer["error"]["message"]
    writer.write(b'{"op":"workloads"}\n')
    assert json.loads(await asyncio.wait_for(reader.readline(), 5)) == {"result": {"workloads": []}}
    writer.close()


async def test_requests_that_are_refused(controller: FakeController, agent: AgentUnderTest) -> None:
    with Program("1") as one, Program("1") as two:
        await agent.launch(one.pid, name="one")
        cases = [
            (Launch(pid=two.pid, name="one"), Launched, "conflict"),
            (Launch(pid=two.pid, name="UPPER"), Launched, "bad-request"),
            (Launch(pid=4194303, name="two"), Launched, "bad-request"),
            (Launch(pid=two.pid, name="two", capture="ebpf"), Launched, "unavailable"),
            (Stop(workload="default/none"), Done, "not-found"),
        ]
        for request, reply, code in cases:
            with pytest.raises(LocalError) as caught:
                await agent.call(request, reply)
            assert caught.value.code == code, request
        assert len(await agent.workloads()) == 1
        assert len(await agent.proxies()) == 1, "nothing half done"


async def test_launch_without_a_controller_is_refused_in_time(
    controller: FakeController, agent: AgentUnderTest
) -> None:
    await controller.stop()
    await until(lambda: _away(agent))
    with Program("1") as program, pytest.raises(LocalError, match="the controller is away"):
        await agent.launch(program.pid, name="one", timeout_s=0.5)
    assert await agent.workloads() == ()


async def test_upstreams_get_local_ports(controller: FakeController, agent: AgentUnderTest) -> None:
    port = free_port()
    with Program(str(port), WHO="ratings") as server, Program("1") as client:
        ports = (PortSpec(number=9080, app_port=port, protocol="http"),)
        await agent.launch(server.pid, service="ratings", name="ratings", ports=ports)
        server.go()
        await controller.until(lambda: controller.workloads["default/ratings"].ports[0].listening)
        spec = UpstreamSpec(host="ratings", port=9080, env="RATINGS_URL")
        launched = await agent.launch(client.pid, name="curl", upstreams=(spec,))
        address = launched.env["RETIA_UPSTREAM_RATINGS_9080"]
        assert launched.env["RATINGS_URL"] == f"http://{address}"
        answer = await get("", f"http://{address}/direct")
        assert (answer.status_code, answer.text) == (200, "ratings /direct")


@pytest.mark.privileged
@pytest.mark.parametrize("mode", ["explicit", "ebpf"])
async def test_members_of_the_group_may_launch_and_no_more(controller: FakeController, mode: str) -> None:
    group = grp.getgrgid(NOBODY).gr_name
    options = ("--socket-group", group, "--capture", "auto")
    async with AgentUnderTest(controller.address, controller.token, *options) as agent:
        path = agent.home / "run" / "agent.sock"
        assert await asyncio.to_thread(as_user, path, [NOBODY], mode) == [mode, "denied"]
        assert await asyncio.to_thread(as_user, path, [], mode) == ["denied"]


async def _away(agent: AgentUnderTest) -> bool:
    return not (await agent.info()).connected


async def test_shutdown_by_request(controller: FakeController, agent: AgentUnderTest) -> None:
    assert agent.process is not None
    await agent.call(Shutdown(), Done)
    assert await asyncio.to_thread(agent.process.wait, 20) == 0
