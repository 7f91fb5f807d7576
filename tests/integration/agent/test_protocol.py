"""Controllers of the versions before and after this one: the agent's session over real connections."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

import pytest
from grpclib.client import Channel

from retia._generated import agent_pb2 as pb
from retia.agent.session import PROTOCOL, Session, resource_of
from retia.aio.grpc import Method, Server
from retia.aio.tasks import stop
from retia.model.resource import TypeUrl
from tests.support.protocol import with_unknown_field
from tests.support.waiting import until


class Host:
    """An agent that only takes down what it is told."""

    def __init__(self) -> None:
        self.welcome: Any = None
        self.resources: list[Any] = []
        self.names: list[Any] = []
        self.mesh: Any = None

    def hello(self) -> Any:
        return pb.Hello(protocol=PROTOCOL, host="one", software="test")

    def subscriptions(self) -> dict[tuple[str, TypeUrl], list[str]]:
        return {("default/web-0", TypeUrl.VIRTUAL_HOST): ["9080/reviews:9080"]}

    def statuses(self) -> Iterable[tuple[str, Any]]:
        return ()

    def on_connected(self, welcome: Any) -> None:
        self.welcome = welcome

    def on_disconnected(self) -> None: ...

    def on_resources(self, message: Any) -> None:
        self.resources += [r for r in map(resource_of, message.resources) if r is not None]

    def on_standby(self, message: Any) -> None: ...

    def on_names(self, message: Any) -> None:
        self.names.append(message)

    def on_mesh(self, message: Any) -> None:
        self.mesh = message

    async def answer(self, query: Any) -> Any:
        return pb.QueryReply(id=query.id, status=200, body=query.path.encode())


class Controller:
    """Says welcome, then what a test tells it to; takes down what comes."""

    def __init__(self, welcome: Any, *then: Any) -> None:
        self._said = [pb.ControllerMessage(welcome=welcome), *then]
        self.heard: list[Any] = []

    async def session(self, stream: Any) -> None:
        self.heard.append(await stream.recv_message())
        for message in self._said:
            await stream.send_message(message)
        while (message := await stream.recv_message()) is not None:
            self.heard.append(message)


Connect = Callable[[Controller], Awaitable[Host]]


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """Opens a session with a controller."""
    async with contextlib.AsyncExitStack() as opened:

        async def open_session(controller: Controller) -> Host:
            sock = socket.create_server(("127.0.0.1", 0))
            port = sock.getsockname()[1]
            method = Method(
                "/retia.agent.v1.Gateway/Session",
                controller.session,
                pb.AgentMessage,
                pb.ControllerMessage,
                streaming=True,
            )
            server = Server(method)
            await server.listen(sock)
            opened.push_async_callback(server.stop)

            async def channel() -> Channel:
                return Channel("127.0.0.1", port)

            host = Host()
            task = asyncio.create_task(Session(host, channel).run())
            opened.push_async_callback(stop, task)
            return host

        yield open_session


QUERY = pb.ControllerMessage(query=pb.Query(id=7, proxy="default/web-0", path="/stats"))


def heard(controller: Controller, kind: str) -> list[Any]:
    return [getattr(m, kind) for m in controller.heard if m.WhichOneof("body") == kind]


@pytest.mark.parametrize("protocol", [0, PROTOCOL - 1, PROTOCOL, PROTOCOL + 1])
async def test_a_session_with_a_neighbouring_version(connect: Connect, protocol: int) -> None:
    controller = Controller(pb.Welcome(protocol=protocol, lease_ms=900), QUERY)
    host = await connect(controller)
    await until(lambda: heard(controller, "reply") and heard(controller, "heartbeat"))
    assert heard(controller, "hello")[0].protocol == PROTOCOL
    assert heard(controller, "subscribe")[0].names == ["9080/reviews:9080"]
    assert heard(controller, "reply")[0].body == b"/stats"
    assert host.welcome.protocol == protocol


async def test_what_a_newer_controller_adds_is_passed_over(connect: Connect) -> None:
    known = pb.Resource(type_url=TypeUrl.CLUSTER, name="outbound|9080||reviews", version="1", wire=b"")
    later = pb.Resource(type_url="type.example/of.a.Later.Time", name="x", version="1")
    controller = Controller(
        with_unknown_field(pb.Welcome(protocol=PROTOCOL + 1, software="retia-controller/9.0", lease_ms=900)),
        with_unknown_field(pb.ControllerMessage()),
        pb.ControllerMessage(mesh=with_unknown_field(pb.Mesh(trust_domain="cluster.local"))),
        pb.ControllerMessage(
            resources=pb.Resources(
                proxy="default/web-0",
                resources=[later, with_unknown_field(known)],
                removed=[pb.Removed(type_url="type.example/of.a.Later.Time", name="y")],
            )
        ),
        pb.ControllerMessage(names=with_unknown_field(pb.Names(revision=3, full=True))),
        QUERY,
    )
    host = await connect(controller)
    await until(lambda: heard(controller, "reply"))
    assert [r.name for r in host.resources] == ["outbound|9080||reviews"]
    assert host.mesh.trust_domain == "cluster.local"
    assert [n.revision for n in host.names] == [3]
