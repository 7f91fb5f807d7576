"""What goes up and down a session, as messages."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retia._generated import agent_pb2 as pb
from retia.agent.session import MAX_NAMES_A_MESSAGE, Session, has_message, name_of, resource_of
from retia.model.resource import Built, Name, Resource, TypeUrl
from retia.xds.wire import absent, encode

VHDS, CDS = TypeUrl.VIRTUAL_HOST, TypeUrl.CLUSTER


class QuietHost:
    """A host that has nothing and hears nothing."""

    def hello(self) -> Any:
        return pb.Hello(host="h1")

    def subscriptions(self) -> dict[tuple[str, TypeUrl], list[str]]:
        return {}

    def statuses(self) -> Iterable[tuple[str, Any]]:
        return ()

    def on_connected(self, welcome: Any) -> None: ...

    def on_disconnected(self) -> None: ...

    def on_resources(self, message: Any) -> None: ...

    def on_standby(self, message: Any) -> None: ...

    def on_names(self, message: Any) -> None: ...

    def on_mesh(self, message: Any) -> None: ...

    async def answer(self, query: Any) -> Any:
        return pb.QueryReply(id=query.id, status=200)


@pytest.fixture
async def session() -> Session:
    async def connect() -> Any:
        raise ConnectionRefusedError("nobody")

    made = Session(QuietHost(), connect)
    made.connected.set()
    return made


def said(session: Session) -> list[str]:
    """What would be sent now, in words."""
    words = []
    for message in session._unsaid.messages():
        kind = message.WhichOneof("body")
        body = getattr(message, kind)
        match kind:
            case "workload":
                words.append(f"workload {body.removed or body.workload.id}{'-' if body.removed else ''}")
            case "proxy":
                words.append(f"proxy {body.removed or body.proxy.id}{'-' if body.removed else ''}")
            case "subscribe":
                words.append(f"want {' '.join(body.names)}" if body.names else f"leave {' '.join(body.gone)}")
            case "status":
                states = " ".join(f"{r.name}={r.state}" for r in body.resources)
                words.append(f"status {body.proxy} {states}{' health' if body.HasField('health') else ''}")
            case other:
                words.append(other)
    return words


async def test_later_replaces_earlier(session: Session) -> None:
    for healthy in (False, True):
        session.tell_workload(pb.Workload(id="a", healthy=healthy))
    session.subscribe("a", [Name(VHDS, "x"), Name(VHDS, "y")])
    session.subscribe("a", [Name(VHDS, "x")], gone=True)
    for state in ("nacked", "acked"):
        session.tell_status("a", pb.ResourceStatus(type_url=VHDS, name="y", state=state))
    assert said(session) == ["workload a", "want y", "leave x", "status a y=acked"]


async def test_a_workload_is_told_before_its_proxy(session: Session) -> None:
    session.tell_proxy(pb.Proxy(id="a"))
    session.subscribe("a", [Name(VHDS, "x")])
    session.tell_health("a", pb.ProxyHealth(pid=1))
    session.tell_workload(pb.Workload(id="a"))
    assert said(session) == ["workload a", "proxy a", "want x", "status a  health"]


async def test_nothing_is_said_of_a_proxy_that_is_gone(session: Session) -> None:
    session.subscribe("a", [Name(VHDS, "x")])
    session.tell_status("a", pb.ResourceStatus(type_url=VHDS, name="x", state="acked"))
    session.tell_learned("a", [Name(VHDS, "x")])
    session.tell_proxy_gone("a")
    assert said(session) == ["proxy a-"]


async def test_long_lists_are_cut(session: Session) -> None:
    session.subscribe("a", [Name(VHDS, str(n)) for n in range(MAX_NAMES_A_MESSAGE + 1)])
    assert len(said(session)) == 2


async def test_nothing_is_kept_while_nobody_listens(session: Session) -> None:
    session.connected.clear()
    for number in range(10_000):
        session.subscribe("a", [Name(VHDS, str(number))])
    assert said(session) == []


async def test_failures_are_named_and_tried_again() -> None:
    attempts = asyncio.Queue[None]()

    async def connect() -> Any:
        attempts.put_nowait(None)
        raise ConnectionRefusedError(111, "Connection refused")

    session = Session(QuietHost(), connect)
    task = asyncio.create_task(session.run())
    for _ in range(2):
        await asyncio.wait_for(attempts.get(), 5)
    assert session.last_error == "Connection refused"
    assert not session.hopeful
    task.cancel()


@pytest.mark.parametrize(
    "resource",
    [
        encode(VHDS, Built("80/a", b"x" * 300, ("80/a", "80/b"), (Name(CDS, "c"),), security=True)),
        absent(VHDS, "80/a"),
        encode(CDS, Built("c", b"")),
    ],
    ids=["with everything", "absent", "empty message"],
)
def test_resources_cross_the_wire_whole(resource: Resource) -> None:
    message = pb.Resource(
        type_url=resource.type,
        name=resource.name,
        version=resource.version,
        wire=resource.wire,
        aliases=resource.aliases,
        refs=[pb.Ref(type_url=r.type, name=r.name) for r in resource.refs],
        security=resource.security,
    )
    assert resource_of(message) == resource


def test_types_of_a_later_version_are_passed_over() -> None:
    assert resource_of(pb.Resource(type_url="type.googleapis.com/new", name="x")) is None
    assert name_of(pb.Removed(type_url="type.googleapis.com/new", name="x")) is None


@given(st.binary(max_size=200))
def test_any_bytes_are_looked_through(data: bytes) -> None:
    has_message(data)


async def test_sessions_that_broke_leave_time_outs_intact() -> None:
    """A call that grpclib interrupts must not poison the task that goes on trying."""
    listener = await asyncio.start_server(_hang_up, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    attempts = asyncio.Queue[None]()

    async def connect() -> Any:
        from grpclib.client import Channel

        attempts.put_nowait(None)
        channel = Channel("127.0.0.1", port)
        await channel.__connect__()
        return channel

    session = Session(QuietHost(), connect)
    task = asyncio.create_task(session.run())
    for _ in range(3):
        await asyncio.wait_for(attempts.get(), 10)
    assert task.cancelling() == 0
    assert not task.done()
    task.cancel()
    listener.close()


async def _hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(100)
    writer.transport.abort()
