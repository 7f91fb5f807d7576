"""Health checks: what passes, what fails, and when that changes anything."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from retia.agent.health import (
    GRPC_METHOD,
    Judge,
    Unhealthy,
    check_grpc,
    check_http,
    check_tcp,
    parse_status,
)
from retia.aio.grpc import Method, Server
from retia.api.local import HealthCheck


def judge(**fields: Any) -> Judge:
    return Judge(HealthCheck(kind="tcp", **fields), started=0.0)


def test_thresholds_decide() -> None:
    it = judge(healthy_threshold=2, unhealthy_threshold=3)
    verdicts = []
    for passed in (True, True, False, False, True, False, False, False):
        it.passed() if passed else it.failed(100.0)
        verdicts.append(it.healthy)
    assert verdicts == [False, True, True, True, True, True, True, False]


def test_failures_at_the_start_are_not_counted() -> None:
    it = judge(start_period_s=10, unhealthy_threshold=1)
    it.passed()
    it.failed(9.0)
    assert it.healthy
    it.failed(11.0)
    assert not it.healthy


@pytest.mark.parametrize("line", [b"HTTP/1.1 200 OK\r\n", b"HTTP/1.0 200\r\n"])
def test_status_lines(line: bytes) -> None:
    assert parse_status(line) == 200


@pytest.mark.parametrize("line", [b"", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 OK\r\n", b"HTTP/2 200\r\n"])
def test_what_is_no_status_line(line: bytes) -> None:
    with pytest.raises(Unhealthy):
        parse_status(line)


@asynccontextmanager
async def answering(answer: bytes) -> AsyncIterator[tuple[int, list[bytes]]]:
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1], heads
    server.close()


async def test_http() -> None:
    async with answering(b"HTTP/1.1 204 No Content\r\n\r\n") as (port, heads):
        await check_http("127.0.0.1", port, "healthz")
    assert heads[0].startswith(b"GET /healthz HTTP/1.1\r\n")


@pytest.mark.parametrize("answer", [b"HTTP/1.1 503 No\r\n\r\n", b"hello\r\n", b"", b"x" * 100_000])
async def test_http_that_fails(answer: bytes) -> None:
    async with answering(answer) as (port, _):
        with pytest.raises((Unhealthy, OSError)):
            await check_http("127.0.0.1", port, "/")


async def test_tcp() -> None:
    async with answering(b"") as (port, _):
        await check_tcp("127.0.0.1", port)
    with pytest.raises(ConnectionRefusedError):
        await check_tcp("127.0.0.1", port)


@asynccontextmanager
async def grpc_health(reply: bytes | Status) -> AsyncIterator[tuple[int, list[bytes]]]:
    import socket

    asked: list[bytes] = []

    async def check(stream: Any) -> None:
        asked.append(await stream.recv_message())
        if isinstance(reply, Status):
            raise GRPCError(reply)
        await stream.send_message(reply)

    server = Server(Method(GRPC_METHOD, check, bytes, bytes))
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    port = sock.getsockname()[1]
    await server.listen(sock)
    yield port, asked
    await server.stop()


async def test_grpc() -> None:
    async with grpc_health(b"\x08\x01") as (port, asked):
        await check_grpc("127.0.0.1", port, "shop.Cart")
        await check_grpc("127.0.0.1", port, "")
    assert asked == [b"\x0a\x09shop.Cart", b""]


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (b"\x08\x02", "not SERVING"),
        (b"", "not SERVING"),
        (Status.NOT_FOUND, "NOT_FOUND"),
        (Status.UNIMPLEMENTED, "UNIMPLEMENTED"),
    ],
)
async def test_grpc_that_fails(reply: bytes | Status, message: str) -> None:
    async with grpc_health(reply) as (port, _):
        with pytest.raises(Unhealthy, match=message):
            await check_grpc("127.0.0.1", port, "")
