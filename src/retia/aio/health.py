"""Health and metrics over plain HTTP on the loopback address: ``/healthz``, ``/readyz``, ``/metrics``.

Small enough to be written here: GET only, one request a connection, bounded in size and time.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress

REQUEST_BYTES = 8192
TIMEOUT_S = 5.0


class HealthServer:
    """``ready`` tells whether the program serves; ``counters`` gives its numbers, named ``<prefix>_...``."""

    def __init__(
        self, ready: Callable[[], bool], counters: Callable[[], Mapping[str, float]], prefix: str
    ) -> None:
        self._prefix = prefix
        self._ready = ready
        self._counters = counters
        self._server: asyncio.Server | None = None

    async def listen(self, sock: socket.socket) -> None:
        self._server = await asyncio.start_server(self._serve, sock=sock, limit=REQUEST_BYTES)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            async with asyncio.timeout(TIMEOUT_S):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(self._answer(head.split(b"\r\n", 1)[0].decode("latin-1")))
                await writer.drain()
        writer.close()

    def _answer(self, line: str) -> bytes:
        method, _, rest = line.partition(" ")
        path = rest.partition(" ")[0].partition("?")[0]
        if method != "GET":
            return _response("405 Method Not Allowed", "only GET\n")
        match path:
            case "/healthz":
                return _response("200 OK", "ok\n")
            case "/readyz":
                ready = self._ready()
                return _response("200 OK" if ready else "503 Service Unavailable", "ready\n" if ready else "")
            case "/metrics":
                return _response("200 OK", metrics(self._counters(), self._prefix))
        return _response("404 Not Found", "there are /healthz, /readyz and /metrics\n")


def metrics(counters: Mapping[str, float], prefix: str) -> str:
    """Numbers in Prometheus' text format."""
    return "".join(f"{prefix}_{name} {value:g}\n" for name, value in sorted(counters.items()))


def _response(status: str, body: str) -> bytes:
    data = body.encode()
    head = (
        f"HTTP/1.1 {status}\r\ncontent-type: text/plain; version=0.0.4\r\n"
        f"content-length: {len(data)}\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + data
