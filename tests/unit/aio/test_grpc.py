"""The server against grpclib's client, over a real unix socket."""

from __future__ import annotations

import asyncio
import socket
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from grpclib.client import Channel
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError, StreamTerminatedError

from retia.aio.grpc import Inbox, Method, MixedCodec, Server, receive_bytes, send_now

LIMIT = 1000


async def _echo(stream: Any) -> None:
    while (data := await receive_bytes(stream, LIMIT)) is not None:
        await stream.send_message(data)


async def _shout(stream: Any) -> None:
    """As the streams of xDS do it: without a task for reading."""
    ended: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
    await stream.send_initial_metadata()

    def take(data: bytes) -> None:
        assert send_now(stream, data.upper())

    Inbox(stream, take, ended.set_result, LIMIT)
    error = await ended
    if error is not None:
        raise error


async def _refuse(stream: Any) -> None:
    await receive_bytes(stream)
    raise GRPCError(Status.PERMISSION_DENIED, "not you: é")


async def _fail(stream: Any) -> None:
    raise ValueError("secret detail")


@pytest.fixture
async def call() -> AsyncIterator[Callable[[str], Any]]:
    methods = [
        Method(f"/test/{name}", handler, bytes, bytes, streaming=True)
        for name, handler in {"echo": _echo, "shout": _shout, "refuse": _refuse, "fail": _fail}.items()
    ]
    server = Server(*methods)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "s"
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(str(path))
        await server.listen(sock)
        channel = Channel(path=str(path), codec=MixedCodec())

        def request(name: str) -> Any:
            return channel.request(f"/test/{name}", Cardinality.STREAM_STREAM, bytes, bytes)

        request.server = server  # type: ignore[attr-defined]
        yield request
        channel.close()
        await server.stop()


@pytest.mark.parametrize(("method", "answer"), [("echo", b"hello"), ("shout", b"HELLO")])
async def test_messages_go_both_ways(call: Any, method: str, answer: bytes) -> None:
    async with call(method) as stream:
        for _ in range(3):
            await stream.send_message(b"hello")
            assert await stream.recv_message() == answer
        await stream.end()
        assert await stream.recv_message() is None


@pytest.mark.parametrize("method", ["echo", "shout"])
async def test_a_message_beyond_the_limit_is_refused(call: Any, method: str) -> None:
    with pytest.raises(GRPCError) as caught:
        async with call(method) as stream:
            await stream.send_message(b"x" * (LIMIT + 1), end=True)
            await stream.recv_message()
            await stream.recv_trailing_metadata()
    assert caught.value.status is Status.RESOURCE_EXHAUSTED


async def test_a_refusal_arrives_with_its_message(call: Any) -> None:
    with pytest.raises(GRPCError) as caught:
        async with call("refuse") as stream:
            await stream.send_message(b"")
            await stream.recv_message()
    assert (caught.value.status, caught.value.message) == (Status.PERMISSION_DENIED, "not you: é")


async def test_a_failure_says_nothing_of_itself(call: Any) -> None:
    with pytest.raises(GRPCError) as caught:
        async with call("fail") as stream:
            await stream.send_message(b"")
            await stream.recv_message()
    assert caught.value.status is Status.INTERNAL
    assert "secret" not in (caught.value.message or "")


async def test_a_server_that_stops_ends_its_streams(call: Any) -> None:
    with pytest.raises((StreamTerminatedError, ConnectionError)):
        async with call("echo") as stream:
            await stream.send_message(b"hello")
            await stream.recv_message()
            async with asyncio.timeout(5):
                await call.server.stop()
                await stream.recv_message()
