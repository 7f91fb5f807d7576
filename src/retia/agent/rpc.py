"""Connections to the controller: gRPC over mutual TLS.

:func:`retia.authority.tls.client_context` verifies the controller's name as a part of the handshake; here are
the channel, with its liveness checks, and the methods of ``retia.agent.v1``.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Coroutine
from typing import Any, TypeVar

from grpclib.client import Channel, StreamStreamMethod, UnaryUnaryMethod
from grpclib.config import Configuration
from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError

from retia._generated import agent_pb2 as pb
from retia.authority.tls import explain

CONNECT_TIMEOUT_S = 5.0
CALL_TIMEOUT_S = 10.0
KEEPALIVE_S = 5.0
KEEPALIVE_TIMEOUT_S = 5.0
"""A controller behind a cut cable is noticed after the sum of both."""

T = TypeVar("T")
Message = Any
"""A message of ``retia.agent.v1`` (generated code is not typed here)."""

RPC_ERRORS = (OSError, GRPCError, StreamTerminatedError, ProtocolError, TimeoutError)
"""All that a call can fail with."""


def split_address(text: str) -> tuple[str, int]:
    """``HOST:PORT`` or ``[IPV6]:PORT``. Raises ``ValueError`` with one sentence."""
    host, found, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not found or not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"controller address {text!r}: HOST:PORT is needed, for example 10.0.0.5:15012")
    return host, int(port)


async def alone(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that makes calls in a task of its own.

    grpclib interrupts a call whose connection breaks by cancelling the calling task, and turns that into an
    error, but leaves the task's count of cancellations raised (``Task.cancelling``, new in Python 3.11).
    From then on ``asyncio.timeout`` in that task ends in ``CancelledError``. A task that makes one call and
    ends has no such future.
    """
    task = asyncio.create_task(coroutine, name="call")
    try:
        return await task
    except asyncio.CancelledError:
        current = asyncio.current_task()
        if current is not None and not current.cancelling():
            raise ConnectionError("the connection broke") from None
        raise


async def open_channel(address: str, context: ssl.SSLContext) -> Channel:
    """A connected channel. Raises one of :data:`RPC_ERRORS`."""
    host, port = split_address(address)
    config = Configuration(
        _keepalive_time=KEEPALIVE_S,
        _keepalive_timeout=KEEPALIVE_TIMEOUT_S,
        _keepalive_permit_without_calls=True,
        _http2_max_pings_without_data=0,
        _http2_min_sent_ping_interval_without_data=KEEPALIVE_S,
    )
    channel = Channel(host, port, ssl=context, config=config)
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            await channel.__connect__()
    except BaseException:
        channel.close()
        raise
    return channel


def session_method(channel: Channel) -> Any:
    return StreamStreamMethod(
        channel, "/retia.agent.v1.Gateway/Session", pb.AgentMessage, pb.ControllerMessage
    )


def join_method(channel: Channel) -> Any:
    return UnaryUnaryMethod(channel, "/retia.agent.v1.Identity/Join", pb.JoinRequest, pb.SignedReply)


def renew_method(channel: Channel) -> Any:
    return UnaryUnaryMethod(channel, "/retia.agent.v1.Identity/Renew", pb.RenewRequest, pb.SignedReply)


def sign_method(channel: Channel) -> Any:
    path = "/retia.agent.v1.Identity/SignWorkload"
    return UnaryUnaryMethod(channel, path, pb.SignWorkloadRequest, pb.SignedReply)


def describe(error: BaseException) -> str:
    """What went wrong, for a person."""
    if isinstance(error, GRPCError):
        return str(error.message or error.status.name)
    if isinstance(error, ConnectionError) and not error.errno:
        return str(error) or "the connection broke"
    if isinstance(error, StreamTerminatedError):
        return "the connection broke"
    return explain(error)
