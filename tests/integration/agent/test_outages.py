"""What goes on when something is killed: the controller, the worker, an Envoy, the keeper."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from contextlib import AsyncExitStack

import httpx
import pytest

from retia._generated import agent_pb2 as pb
from retia.agent.keeper import start_stamp
from retia.api.local import LocalError, PortSpec
from retia.cli.tour.stage import free_port
from retia.model.resource import Name, TypeUrl
from retia.node.meshindex import lock_name
from tests.integration.agent.fakes import FakeController
from tests.integration.agent.hosts import AgentUnderTest, Program, get
from tests.support.waiting import until

REVIEWS = "outbound|9080||reviews.default.svc.cluster.local"


class Shop:
    """A client that has called ``reviews``, and a ``ratings`` that it has never called."""

    def __init__(self, controller: FakeController, agent: AgentUnderTest) -> None:
        self._controller = controller
        self._agent = agent
        self.proxy = ""
        self.programs: list[Program] = []

    async def open(self, stack: AsyncExitStack) -> None:
        for service in ("reviews", "ratings"):
            port = free_port()
            program = stack.enter_context(Program(str(port), WHO=service))
            ports = (PortSpec(number=9080, app_port=port, protocol="http"),)
            await self._agent.launch(program.pid, service=service, name=service, ports=ports)
            program.go()
            self.programs.append(program)
        client = stack.enter_context(Program("1"))
        self.programs.append(client)
        self.proxy = (await self._agent.launch(client.pid, name="curl")).env["http_proxy"]
        workloads = self._controller.workloads
        await self._controller.until(
            lambda: all(workloads[f"default/{s}"].ports[0].listening for s in ("reviews", "ratings"))
        )
        assert await self.call("reviews") == (200, "reviews /")

    async def call(self, service: str) -> tuple[int, str]:
        answer = await get(self.proxy, f"http://{service}:9080/")
        return answer.status_code, answer.text

    def standby(self, service: str) -> None:
        """The controller sends the client's standby copy of a service."""
        host = f"{service}.default.svc.cluster.local"
        cluster = f"outbound|9080||{host}"
        names = [
            Name(TypeUrl.VIRTUAL_HOST, f"explicit/{host}:9080"),
            Name(TypeUrl.CLUSTER, cluster),
            Name(TypeUrl.ENDPOINTS, cluster),
        ]
        message = pb.Standby(workload="default/curl", complete=True)
        message.resources.extend(self._controller.resource_message("default/curl", n) for n in names)
        self._controller.send(pb.ControllerMessage(standby=message))


@pytest.fixture
async def shop(controller: FakeController, agent: AgentUnderTest):  # type: ignore[no-untyped-def]
    async with AsyncExitStack() as stack:
        made = Shop(controller, agent)
        await made.open(stack)
        yield made


async def test_controller_away(controller: FakeController, agent: AgentUnderTest, shop: Shop) -> None:
    shop.standby("ratings")
    await asyncio.sleep(0.1)
    await controller.stop()

    async def away() -> bool:
        return not (await agent.info()).connected

    await until(away)
    assert await shop.call("reviews") == (200, "reviews /")
    assert await shop.call("ratings") == (200, "ratings /"), "from the standby copy"
    status, body = await shop.call("nobody")
    assert (status, "the controller is away" in body) == (503, True)

    sent = controller.resources_sent
    await controller.start()
    await controller.until(lambda: len(controller.hellos) == 2)

    async def corrected() -> bool:
        return "the controller is away" not in (await shop.call("nobody"))[1]

    await until(corrected)
    assert await shop.call("ratings") == (200, "ratings /")
    assert controller.resources_sent == sent + 2, "the unknown host's, and nothing that is held is sent again"


async def test_unknown_name_comes_into_being(
    controller: FakeController, agent: AgentUnderTest, shop: Shop
) -> None:
    await controller.stop()
    assert (await shop.call("details"))[0] == 503
    await controller.start()
    port = free_port()
    with Program(str(port), WHO="details") as program:
        ports = (PortSpec(number=9080, app_port=port, protocol="http"),)
        await agent.launch(program.pid, service="details", name="details", ports=ports)
        program.go()
        await controller.until(lambda: controller.workloads["default/details"].ports[0].listening)

        async def there() -> bool:
            return await shop.call("details") == (200, "details /")

        await until(there)


async def test_silent_controller_is_not_waited_for(controller: FakeController, shop: Shop) -> None:
    controller.silent = True
    async with asyncio.timeout(4.0):
        assert (await shop.call("ratings"))[0] == 503


async def test_worker_killed(controller: FakeController, agent: AgentUnderTest, shop: Shop) -> None:
    before = {p.id: p.pid for p in await agent.proxies()}
    stop = asyncio.Event()
    failures: list[object] = []

    async def load() -> None:
        while not stop.is_set():
            answer = await shop.call("reviews")
            if answer[0] != 200:
                failures.append(answer)

    task = asyncio.create_task(load())
    await agent.kill_worker()
    assert await shop.call("ratings") == (200, "ratings /")
    stop.set()
    await task
    assert failures == []
    assert {p.id: p.pid for p in await agent.proxies()} == before, "the same Envoys"
    assert len(controller.workloads) == 3


async def test_worker_killed_with_the_controller_away(
    controller: FakeController, agent: AgentUnderTest, shop: Shop
) -> None:
    shop.standby("ratings")
    await asyncio.sleep(0.2)
    await controller.stop()
    await agent.kill_worker()
    assert await shop.call("reviews") == (200, "reviews /")
    assert await shop.call("ratings") == (200, "ratings /")


async def test_program_that_ends_while_the_worker_is_away(
    controller: FakeController, agent: AgentUnderTest, shop: Shop
) -> None:
    worker = await agent.worker_pid()
    os.kill(worker, signal.SIGSTOP)
    shop.programs[1].end()
    os.kill(worker, signal.SIGKILL)
    await controller.until(lambda: "default/ratings" not in controller.workloads)
    await until(lambda: _has_proxies(agent, 2))


async def test_envoy_killed(controller: FakeController, agent: AgentUnderTest, shop: Shop) -> None:
    before = {p.id: p.pid for p in await agent.proxies()}
    loop = asyncio.get_running_loop()
    os.kill(before["default/curl"], signal.SIGKILL)
    killed = loop.time()

    async def back() -> bool:
        try:
            return await shop.call("reviews") == (200, "reviews /")
        except httpx.TransportError:
            return False

    await until(back)
    assert loop.time() - killed < 2.0, "about 1 s, and some for a busy machine"
    after = {p.id: (p.pid, p.restarts) for p in await agent.proxies()}
    assert after["default/curl"][0] != before["default/curl"]
    assert after["default/curl"][1] == 1


async def test_envoy_killed_with_the_controller_away(
    controller: FakeController, agent: AgentUnderTest, shop: Shop
) -> None:
    await controller.stop()
    pids = {p.id: p.pid for p in await agent.proxies()}
    os.kill(pids["default/reviews"], signal.SIGKILL)

    async def back() -> bool:
        return await shop.call("reviews") == (200, "reviews /")

    await until(back)


async def test_keeper_killed(controller: FakeController, agent: AgentUnderTest, shop: Shop) -> None:
    before = {p.id: p.pid for p in await agent.proxies()}
    lock = lock_name((await agent.info()).index)
    await agent.stop(signal.SIGKILL)
    assert await shop.call("reviews") == (200, "reviews /"), "Envoys outlive the keeper"
    assert await shop.call("ratings") == (200, "ratings /"), "the worker goes on without it"
    with socket.socket(socket.AF_UNIX) as other, pytest.raises(OSError, match="in use"):
        other.bind(lock)
    await agent.start()
    assert {p.id: p.pid for p in await agent.proxies()} == before, "and are taken over by the next"
    assert await shop.call("ratings") == (200, "ratings /")
    for program in shop.programs:
        program.end()
    await until(lambda: _has_proxies(agent, 0))
    assert not any(start_stamp(pid) for pid in before.values())


async def test_orderly_end_leaves_nothing(
    controller: FakeController, agent: AgentUnderTest, shop: Shop
) -> None:
    pids = [p.pid for p in await agent.proxies()]
    assert await agent.stop() == 0
    assert not any(start_stamp(pid) for pid in pids)
    assert controller.workloads == {}
    left = {p.name for p in (agent.home / "run").rglob("*.sock")}
    assert left == set()


async def test_damaged_state(controller: FakeController, agent: AgentUnderTest, shop: Shop) -> None:
    database = agent.home / "agent" / "state.sqlite"
    for path in (database, database.with_name("state.sqlite-wal")):
        path.write_bytes(b"\0garbage\0" * 4096)
    port = free_port()
    with Program(str(port), WHO="details") as program:
        ports = (PortSpec(number=9080, app_port=port, protocol="http"),)
        await agent.launch(program.pid, service="details", name="details", ports=ports)
        program.go()
        assert await shop.call("reviews") == (200, "reviews /")

        async def said() -> bool:
            return "was damaged" in agent.log() and "kept on disk again" in agent.log()

        await until(said)
        await agent.kill_worker()
        assert await shop.call("reviews") == (200, "reviews /")


async def test_state_lost_while_no_worker_runs(
    controller: FakeController, agent: AgentUnderTest, shop: Shop
) -> None:
    before = {p.id: p.pid for p in await agent.proxies()}
    worker = await agent.worker_pid()
    os.kill(worker, signal.SIGSTOP)
    (agent.home / "agent" / "state.sqlite").write_bytes(b"nonsense" * 1024)
    os.kill(worker, signal.SIGKILL)
    await agent.until_answering()
    assert {p.id: p.pid for p in await agent.proxies()} == before
    assert await shop.call("ratings") == (200, "ratings /")


async def _has_proxies(agent: AgentUnderTest, count: int) -> bool:
    try:
        return len(await agent.proxies()) == count
    except LocalError:
        return False
