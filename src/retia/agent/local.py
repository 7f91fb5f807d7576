"""The local agent socket: programs on this host ask to be taken into the mesh. See :mod:`retia.api.local`.

Who asks is told by the kernel. Root and the agent's own user may do everything; members of the socket's group
may launch, and end their own, and ask.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from pydantic import BaseModel, ValidationError

from retia.agent.launch import Launcher, Peer
from retia.api.local import (
    REQUEST,
    Admin,
    AdminReply,
    AgentInfo,
    Bypass,
    Bypassed,
    Done,
    Drain,
    Enter,
    Info,
    Launch,
    LocalError,
    Proxies,
    ProxyList,
    Shutdown,
    Stop,
    WorkloadList,
    Workloads,
)

MAX_REQUEST_BYTES = 1 << 20
MAX_CONNECTIONS = 256
IDLE_S = 600.0
_CREDENTIALS = struct.Struct("=iII")
_log = structlog.get_logger("retia.agent.local")


class Answers:
    """What the socket can tell; made by the worker."""

    def __init__(
        self,
        workloads: Callable[[], WorkloadList],
        proxies: Callable[[], Awaitable[ProxyList]],
        ask: Callable[[str, str], Awaitable[tuple[int, bytes]]],
        info: Callable[[], Awaitable[AgentInfo]],
        shutdown: Callable[[], None],
        may_use: Callable[[Peer], bool],
    ) -> None:
        self.workloads = workloads
        self.proxies = proxies
        self.ask = ask
        self.info = info
        self.shutdown = shutdown
        self.may_use = may_use


class LocalServer:
    """Serves the socket."""

    def __init__(self, launcher: Launcher, answers: Answers) -> None:
        self._launcher = launcher
        self._answers = answers
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    async def start(self, sock: socket.socket) -> None:
        self._server = await asyncio.start_unix_server(self._serve, sock=sock, limit=MAX_REQUEST_BYTES)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            for writer in list(self._open):
                writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = peer_of(writer.get_extra_info("socket"))
        if len(self._open) >= MAX_CONNECTIONS:
            writer.close()
            return
        self._open.add(writer)
        try:
            if not self._answers.may_use(peer):
                await _send(writer, error=LocalError("denied", f"user {peer.uid} may not use this agent"))
                return
            while await self._one(reader, writer, peer):
                pass
        except (ConnectionError, TimeoutError):
            pass
        finally:
            self._open.discard(writer)
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, peer: Peer) -> bool:
        try:
            async with asyncio.timeout(IDLE_S):
                line = await reader.readuntil(b"\n")
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            return False
        try:
            request = REQUEST.validate_json(line)
        except ValidationError as error:
            await _send(writer, error=LocalError("bad-request", _first_problem(error)))
            return True
        try:
            reply = await self._do(request, writer, peer)
        except LocalError as error:
            await _send(writer, error=error)
        except Exception as error:  # noqa: BLE001 (one request must not end the agent)
            _log.exception("a request failed", op=request.op)
            await _send(writer, error=LocalError("internal", f"{type(error).__name__}: {error}"))
        else:
            await _send(writer, result=reply)
        return True

    async def _do(self, request: Any, writer: asyncio.StreamWriter, peer: Peer) -> BaseModel:
        match request:
            case Launch():
                return await self._launcher.launch(request, peer, lambda text: _progress(writer, text))
            case Drain():
                self._launcher.drain(request.workload, peer)
                return Done()
            case Stop():
                await self._launcher.stop(
                    request.workload, peer, request.drain_s, request.grace_s, request.signal
                )
                return Done()
            case Enter():
                self._launcher.enter(request.workload, request.pid, peer)
                return Done()
            case Bypass():
                until = self._launcher.bypass(request.workload, request.seconds, request.reason, peer)
                return Bypassed(workload=request.workload, until=until)
            case Workloads():
                return self._answers.workloads()
            case Proxies():
                return await self._answers.proxies()
            case Admin():
                status, body = await self._answers.ask(request.proxy, request.path)
                return AdminReply(status=status, body=body.decode(errors="replace"))
            case Info():
                return await self._answers.info()
            case Shutdown():
                if peer.uid not in (0, os.geteuid()):
                    raise LocalError("denied", "only root and the agent's own user may end the agent")
                self._answers.shutdown()
                return Done()
        raise LocalError("bad-request", f"{request.op} is not an operation")


def peer_of(sock: Any) -> Peer:
    """Who is at the other end of a unix socket."""
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return Peer(*_CREDENTIALS.unpack(raw))


def _progress(writer: asyncio.StreamWriter, text: str) -> None:
    writer.write(_line({"progress": text}))


async def _send(
    writer: asyncio.StreamWriter, result: BaseModel | None = None, error: LocalError | None = None
) -> None:
    if error is not None:
        failure = {"code": error.code, "message": error.message, "remedy": error.remedy}
        writer.write(_line({"error": failure}))
    elif result is not None:
        writer.write(_line({"result": result.model_dump(mode="json")}))
    async with asyncio.timeout(10.0):
        await writer.drain()


def _line(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def _first_problem(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where}: {first['msg']}" if where else str(first["msg"])
