"""A host joins and stays joined: the agent's own identity code against a real controller."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from grpclib.exceptions import StreamTerminatedError

from retia._generated import agent_pb2 as pb
from retia.agent import identity
from retia.agent.identity import HostIdentityKeeper, IdentityUnavailable, WorkloadKeys
from retia.agent.paths import Paths
from retia.agent.rpc import RPC_ERRORS, Message, describe, session_method
from retia.aio.clock import SystemClock
from retia.aio.tasks import stop
from retia.cli.tour.stage import free_port
from retia.control.main import Controller
from retia.control.settings import Settings
from retia.identity.rotation import skew_problem

Start = Callable[..., Awaitable["Running"]]


class Shifted(SystemClock):
    """A clock that is wrong by so many seconds."""

    def __init__(self, shift_s: float) -> None:
        self._shift_s = shift_s

    def now(self) -> float:
        return time.time() + self._shift_s


class Running:
    """A controller in this process, with a clock of its own."""

    def __init__(self, home: Path, shift_s: float, **settings: Any) -> None:
        port, metrics = free_port(), free_port()
        self.controller = Controller(Settings(home=home, port=port, metrics_port=metrics, **settings))
        self.controller.clock = Shifted(shift_s)
        self.address = f"127.0.0.1:{port}"

    def token(self, host: str = "", ttl_s: float = 3600) -> str:
        now = datetime.fromtimestamp(self.controller.clock.now(), UTC)
        return self.controller.tokens.issue(now, timedelta(seconds=ttl_s), host).encode()


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Starts controllers."""
    async with AsyncExitStack() as opened:

        async def one(shift_s: float = 0.0, **settings: Any) -> Running:
            home = opened.enter_context(tempfile.TemporaryDirectory(prefix="retia-", dir="/tmp"))
            running = Running(Path(home), shift_s, **settings)
            await running.controller.start()
            opened.push_async_callback(running.controller.close)
            opened.push_async_callback(stop, asyncio.create_task(running.controller.run()))
            return running

        yield one


@pytest.fixture
def host(tmp_path: Path) -> Callable[..., HostIdentityKeeper]:
    """The identity of a host, as a fresh run of its agent has it."""

    def make(controller: Running, token: str = "", name: str = "one") -> HostIdentityKeeper:
        paths = Paths(tmp_path / name)
        paths.prepare()
        return HostIdentityKeeper(paths, name, controller.address, token)

    return make


Make = Callable[..., HostIdentityKeeper]


@contextlib.asynccontextmanager
async def session(keeper: HostIdentityKeeper, hello: Message) -> AsyncIterator[tuple[Any, Any]]:
    """A session of that host: the stream after the welcome, and the channel."""
    channel = await keeper.connect()
    try:
        async with asyncio.timeout(10), session_method(channel).open() as stream:
            await stream.send_message(pb.AgentMessage(hello=hello))
            welcome = (await stream.recv_message()).welcome
            keeper.note_time(welcome.controller_time)
            yield stream, channel
            await stream.cancel()
    finally:
        channel.close()


def workload(name: str) -> Message:
    return pb.Workload(
        id=f"default/{name}",
        namespace="default",
        service_account=name,
        service=name,
        published_address="127.64.0.1",
        app_address="127.65.0.1",
        capture="ebpf",
        healthy=True,
    )


async def test_a_lost_answer_does_not_burn_the_token(
    start: Start, host: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    controller = await start()
    token = controller.token()
    with monkeypatch.context() as broken:
        broken.setattr(identity, "join_method", lambda channel: lost(real(channel)))
        with pytest.raises(StreamTerminatedError):
            await host(controller, token).ensure()
    # Another run of the agent, on the same host.
    again = host(controller, token)
    await again.ensure()
    assert again.trust_domain == "cluster.local"
    assert not list(tmp_files(again, "join.key"))
    with pytest.raises(IdentityUnavailable, match="was used by host one already"):
        await host(controller, token, "two").ensure()


real = identity.join_method


def lost(method: Any) -> Any:
    async def call(request: Message, timeout: float) -> Message:  # noqa: ASYNC109 - grpclib's own argument
        await method(request, timeout=timeout)
        raise StreamTerminatedError("the answer was lost")

    return call


def tmp_files(keeper: HostIdentityKeeper, name: str) -> list[Path]:
    return [p for p in keeper._folder.iterdir() if p.name == name]


async def test_what_does_not_let_a_host_in_is_said_in_one_line(start: Start, host: Make) -> None:
    controller, other = await start(), await start()
    expired = controller.token(ttl_s=0.2)
    token = controller.token()
    await asyncio.sleep(0.3)
    cases = {
        "": "this host has not joined a mesh",
        "nonsense": "this is no join token: a join token begins with retia1.",
        token[:-4] + "AAAA": "the join token is damaged",
        token[:30]: "the join token is too short",
        expired: "the join token expired at",
        other.token(): "is not the one that made this join token",
        controller.token(host="db-1"): "the join token is for host db-1, not for one",
    }
    for given, said in cases.items():
        with pytest.raises(IdentityUnavailable) as caught:
            await host(controller, given).ensure()
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)
    await host(controller, token).ensure()


async def test_a_hosts_certificate_of_another_mesh_is_refused_unless_something_runs(
    start: Start, host: Make
) -> None:
    controller, other = await start(), await start()
    await host(controller, controller.token()).ensure()
    moved = host(other)
    with pytest.raises(IdentityUnavailable, match=r"belongs to mesh cluster.local.*--join TOKEN") as caught:
        await moved.connect()
    assert "\n" not in str(caught.value)
    moved.patient = True
    with pytest.raises(RPC_ERRORS) as waited:
        await moved.connect()
    assert "it is of another mesh" in describe(waited.value)
    joined = host(other, other.token())
    (await joined.connect()).close()


async def test_the_name_of_a_living_host_is_not_given_away(start: Start, host: Make) -> None:
    controller = await start(lease_s=0.5)
    keeper = host(controller, controller.token())
    async with session(keeper, pb.Hello(protocol=1, host="one")):
        thief = controller.token()
        intruder = host(controller, thief, "elsewhere")
        intruder._host = "one"
        with pytest.raises(IdentityUnavailable, match="host one is in the mesh already, and alive"):
            await intruder.ensure()
        # The token is not used up by that, and one for this very host replaces it.
        await host(controller, thief, "three").ensure()
        meant = host(controller, controller.token(host="one"), "replacement")
        meant._host = "one"
        await meant.ensure()


async def test_a_host_gets_certificates_for_its_own_workloads_only(start: Start, host: Make) -> None:
    controller = await start()
    one, two = (host(controller, controller.token(), name) for name in ("one", "two"))
    keys = WorkloadKeys(Paths(two._folder.parent))
    hello = pb.Hello(protocol=1, host="one", workloads=[workload("reviews")])
    async with session(one, hello), session(two, pb.Hello(protocol=1, host="two")) as (_, channel):
        with pytest.raises(RPC_ERRORS) as caught:
            await keys.sign("default/reviews", channel)
        assert describe(caught.value) == "workload 'default/reviews' is not registered on host two"
        assert keys.get("default/reviews") is None


# -- clocks


@pytest.mark.parametrize("shift_s", [-290, 290])
async def test_five_minutes_of_skew_are_survived(start: Start, host: Make, shift_s: float) -> None:
    """The controller's clock is wrong, and the host's right, to its TLS library as well."""
    controller = await start(shift_s)
    keeper = host(controller, controller.token())
    keys = WorkloadKeys(Paths(keeper._folder.parent))
    hello = pb.Hello(protocol=1, host="one", workloads=[workload("reviews")], agent_time=int(time.time()))
    async with session(keeper, hello) as (_, channel):
        await keys.sign("default/reviews", channel)
        await keeper.renew(channel)
    pair = keys.get("default/reviews")
    now = datetime.now(UTC)
    assert pair is not None
    assert pair.life.not_before <= now < pair.life.not_after
    assert not pair.due(now), "it would be renewed again and again"
    assert not keeper.due(now)
    assert abs(keeper.skew_s - shift_s) < 5
    assert not skew_problem(now, now + timedelta(seconds=keeper.skew_s))
    assert abs(controller.controller.core.registry.hosts["one"].clock_skew_s + shift_s) < 5


@pytest.mark.parametrize("shift_s", [-400, 400])
async def test_more_skew_is_diagnosed_from_the_first_word(start: Start, host: Make, shift_s: float) -> None:
    controller = await start(shift_s)
    keeper = host(controller, controller.token())
    async with session(keeper, pb.Hello(protocol=1, host="one", agent_time=int(time.time()))):
        assert abs(keeper.skew_s - shift_s) < 5
        assert abs(controller.controller.core.registry.hosts["one"].clock_skew_s + shift_s) < 5


async def test_a_clock_far_behind_is_named_as_the_reason(start: Start, host: Make) -> None:
    controller = await start(3600)
    with pytest.raises(RPC_ERRORS) as caught:
        await host(controller, controller.token()).ensure()
    assert describe(caught.value) == (
        "the controller's certificate is not yet valid: this host's clock is behind; set it right"
    )
