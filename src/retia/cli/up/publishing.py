"""Published ports: ways into the mesh for callers outside it.

All of a mesh file's published ports share one client under explicit capture, whose proxy listens on the
upstream ports; so calls from outside take the same routes and policy as calls from within. The client's
process is a waiting shim: it ends when the supervisor does, however that ends, and the proxy with it.

The proxy listens on 127.0.0.1. For another address this process accepts and passes the bytes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable

from retia.api.local import Launch, Launched, LocalError, Stop, UpstreamSpec
from retia.cli.session import Session
from retia.cli.up.child import Child
from retia.cli.up.errors import UpError
from retia.cli.up.instance import call_stop, is_free, spawn_shim
from retia.cli.up.spec import PublishSpec
from retia.model.annotation import PURPOSE

LOOPBACK = "127.0.0.1"
_CHUNK_BYTES = 1 << 16


class Publisher:
    """The published ports that are open now."""

    def __init__(self, session: Session, say: Callable[[str], None]) -> None:
        self._session = session
        self._say = say
        self.published: tuple[PublishSpec, ...] = ()
        self._workload = ""
        self._child: Child | None = None
        self._control: socket.socket | None = None
        self._servers: list[asyncio.Server] = []

    async def change(self, wanted: tuple[PublishSpec, ...]) -> None:
        """Closes what was open and opens ``wanted``; :class:`UpError` leaves nothing open."""
        await self.stop()
        if not wanted:
            return
        self.check(wanted)
        try:
            launched = await self._launch(wanted)
            for item, upstream in zip(wanted, launched.upstreams, strict=True):
                if item.address != LOOPBACK:
                    await self._forward(item, upstream.local_port)
        except BaseException:
            await self.stop()
            raise
        self.published = wanted

    def check(self, wanted: tuple[PublishSpec, ...]) -> None:
        """Raises :class:`UpError` for a port that somebody else has."""
        ours = {(item.address, item.host_port) for item in self.published}
        for item in wanted:
            place = (item.address, item.host_port)
            if place not in ours and not is_free(item.host_port, item.address):
                raise UpError(
                    f"cannot publish {item.host} on {item.address}:{item.host_port}: the port is in use or "
                    "the address is not this machine's; choose another in 'publish'"
                )

    async def stop(self) -> None:
        """Closes everything."""
        for server in self._servers:
            server.close()
        self._servers.clear()
        if self._workload:
            request = Stop(workload=self._workload, drain_s=0, grace_s=0)
            with contextlib.suppress(LocalError):
                await asyncio.to_thread(call_stop, self._session, request, 15.0)
            self._workload = ""
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._child is not None:
            if not await self._child.wait(1.0):
                self._child.signal(signal.SIGKILL)
                await self._child.wait(5.0)
            self._child = None
        self.published = ()

    async def _launch(self, wanted: tuple[PublishSpec, ...]) -> Launched:
        self._control, theirs = socket.socketpair()
        try:
            self._child = Child(spawn_shim(theirs), "publish")
        finally:
            theirs.close()
        request = Launch(
            capture="explicit",
            upstreams=tuple(
                UpstreamSpec(
                    host=item.host,
                    port=item.port,
                    local_port=item.host_port if item.address == LOOPBACK else 0,
                )
                for item in wanted
            ),
            service_account="publish",
            annotations={PURPOSE: "publish"},
            pid=self._child.pid,
            command=("retia", "up", "publish"),
        )
        try:
            launched = await asyncio.to_thread(self._ask, request)
        except LocalError as error:
            raise UpError(f"cannot publish ports: {error}") from error
        self._workload = launched.workload
        return launched

    def _ask(self, request: Launch) -> Launched:
        with self._session.agent(timeout_s=60.0) as agent:
            return agent.call(request, Launched)

    async def _forward(self, item: PublishSpec, local_port: int) -> None:
        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError):
                far_reader, far_writer = await asyncio.open_connection(LOOPBACK, local_port)
                async with asyncio.TaskGroup() as group:
                    group.create_task(_pass_on(reader, far_writer), name="publish-in")
                    group.create_task(_pass_on(far_reader, writer), name="publish-out")
            writer.close()

        try:
            server = await asyncio.start_server(connected, item.address, item.host_port)
        except OSError as error:
            raise UpError(f"cannot listen on {item.address}:{item.host_port}: {error.strerror}") from error
        self._servers.append(server)


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Bytes in one direction until its end; a broken connection is an end like any other."""
    with contextlib.suppress(OSError):
        while data := await reader.read(_CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
    with contextlib.suppress(OSError, RuntimeError):
        if writer.can_write_eof():
            writer.write_eof()
