"""The conversation on ``run/up.sock``: newline JSON, one request on a connection.

A request has ``op`` (``apply``, ``status``, ``down``); answers are any number of ``{"progress": text}`` and
then one of ``{"result": ...}`` or ``{"error": text}``. The socket lies in a folder that only its owner may
enter.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from retia.cli.errors import CliError

MAX_LINE_BYTES = 64 << 20
APPLY_S = 900.0
"""The longest that a change may take: several instances one after the other, each up to a minute."""

Say = Callable[[str], None]
Handler = Callable[[dict[str, Any], Say], Awaitable[Any]]


async def serve(path: Path, handler: Handler) -> asyncio.Server:
    """Listens on ``path``; a :class:`CliError` of the handler becomes the answer's ``error``."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        def send(message: dict[str, Any]) -> None:
            with contextlib.suppress(OSError, RuntimeError):
                writer.write(json.dumps(message).encode() + b"\n")

        try:
            async with asyncio.timeout(10):
                request = json.loads(await reader.readline())
            send({"result": await handler(request, lambda text: send({"progress": text}))})
        except CliError as error:
            send({"error": str(error)})
        except (ValueError, TimeoutError, OSError) as error:
            send({"error": f"the request cannot be read: {error}"})
        with contextlib.suppress(OSError):
            await writer.drain()
            writer.close()

    listener = _listen(path)
    return await asyncio.start_unix_server(connected, sock=listener, limit=MAX_LINE_BYTES)


def _listen(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    listener.bind(str(path))
    path.chmod(0o600)
    return listener


class Talk:
    """The other end: a blocking connection to a running supervisor. Use it as a context manager."""

    def __init__(self, path: Path) -> None:
        """Raises OSError where no supervisor listens."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            self._socket.settimeout(5.0)
            self._socket.connect(str(path))
        except OSError:
            self._socket.close()
            raise
        credentials = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        self.pid: int = struct.unpack("3i", credentials)[0]
        """The supervisor's process."""

    def __enter__(self) -> Talk:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def ask(self, request: dict[str, Any], say: Say, timeout_s: float = APPLY_S) -> Any:
        """The result; :class:`CliError` with the supervisor's own words where it refused."""
        self._socket.settimeout(timeout_s)
        try:
            self._socket.sendall(json.dumps(request).encode() + b"\n")
            with self._socket.makefile("rb") as reader:
                for line in reader:
                    message = json.loads(line)
                    if "progress" in message:
                        say(message["progress"])
                    elif "error" in message:
                        raise CliError(message["error"])
                    else:
                        return message.get("result")
        except TimeoutError as error:
            raise CliError(
                f"the supervisor (process {self.pid}) did not answer within {timeout_s:.0f} s; "
                "see 'retia logs up'"
            ) from error
        except (OSError, ValueError) as error:
            raise CliError(f"the connection to the supervisor (process {self.pid}) broke: {error}") from error
        raise CliError(f"the supervisor (process {self.pid}) ended before it answered; see 'retia logs up'")


def find(path: Path) -> Talk | None:
    """A connection to the supervisor of this mesh, or None where none runs."""
    try:
        return Talk(path)
    except OSError:
        return None


def wait_for_end(pid: int, timeout_s: float) -> bool:
    """Whether the process has ended within the time."""
    import select

    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return True
    try:
        poller = select.poll()
        poller.register(descriptor, select.POLLIN)
        return bool(poller.poll(timeout_s * 1000))
    finally:
        os.close(descriptor)
