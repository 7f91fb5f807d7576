"""The worker's side of the keeper's socket; see :mod:`retia.agent.keeper` for the protocol.

If the keeper goes away the worker has lost its parent: :attr:`KeeperClient.lost` is set. The worker gives
the sockets to the next keeper (:meth:`KeeperClient.hand_over`) and ends, so that one can start a new worker.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from retia.agent.keeper import MAX_PACKET_BYTES, KeeperError

CALL_TIMEOUT_S = 10.0
MAX_DESCRIPTORS = 4


@dataclass(frozen=True, slots=True)
class ProcessEvent:
    """A process of the keeper started or ended."""

    name: str
    pid: int
    ended: bool
    status: int | None = None
    restarting: bool = False
    restarts: int = 0


@dataclass(frozen=True, slots=True)
class Running:
    """One process as the keeper lists it; ``pid`` 0: waiting to be started again."""

    name: str
    pid: int
    restarts: int
    stopping: bool


@dataclass(frozen=True, slots=True)
class Program:
    """What to run; fields as in :class:`retia.agent.keeper.Spec`."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str] | None = None
    cgroup: str = ""
    log: str = ""
    restart: bool = False
    cwd: str = ""
    uid: int = -1
    gid: int = -1
    groups: Sequence[int] | None = field(default=None)

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "argv": list(self.argv),
            "env": None if self.env is None else dict(self.env),
            "cgroup": self.cgroup,
            "log": self.log,
            "restart": self.restart,
            "cwd": self.cwd,
            "uid": self.uid,
            "gid": self.gid,
            "groups": None if self.groups is None else list(self.groups),
        }


class KeeperClient:
    """A connection to the keeper. Made by :meth:`connect`, ended by :meth:`close`."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._calls: dict[int, asyncio.Future[tuple[dict[str, Any], list[int]]]] = {}
        self._opened: dict[str, socket.socket] = {}
        """What was opened and may still be in use; a closed one has no descriptor any more."""
        self._number = 0
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(sock.fileno(), self._receive)
        self.lost = asyncio.Event()
        """Set when the keeper has gone."""
        self.shutdown = asyncio.Event()
        """Set when the keeper asks the worker to take its leave and end everything."""
        self.on_process: Callable[[ProcessEvent], None] = lambda _: None

    @classmethod
    async def connect(cls, run: Path) -> KeeperClient:
        """Raises :class:`KeeperError` where no keeper answers."""
        path = run / "keeper.sock"
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            sock.connect(str(path))
        except OSError as error:
            sock.close()
            raise KeeperError(f"no keeper answers at {path}: {error.strerror or error}") from error
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MAX_PACKET_BYTES * 2)
        return cls(sock)

    def close(self) -> None:
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()
        for call in self._calls.values():
            call.cancel()
        self._calls.clear()
        for key, sock in self._opened.items():
            if key.startswith("lock:"):
                sock.close()
        self._opened.clear()

    async def open_unix(self, path: Path, mode: int = 0o600) -> socket.socket:
        """A listening unix socket at ``path``, held by the keeper under that path."""
        return await self._open(f"unix:{path}", "unix", str(path), 0, mode)

    async def open_tcp(self, address: str, port: int) -> socket.socket:
        return await self._open(f"tcp:{address}:{port}", "tcp", address, port)

    async def open_udp(self, address: str, port: int) -> socket.socket:
        return await self._open(f"udp:{address}:{port}", "udp", address, port)

    async def take_lock(self, name: str) -> None:
        """Bind the abstract unix socket ``name``; :class:`KeeperError` if somebody has it.

        It is held here too, so that nobody gets it while there is no keeper.
        """
        key = f"lock:{name}"
        before = self._opened.get(key)
        await self._open(key, "lock", name, 0)
        if before is not None:
            before.close()

    async def release(self, key: str) -> None:
        """Close a held socket: ``unix:<path>``, ``tcp:<address>:<port>``, ``udp:...``, ``lock:<name>``."""
        self._opened.pop(key, None)
        await self._call({"op": "close", "key": key})

    async def spawn(self, program: Program) -> int:
        """Start a program; returns its process id."""
        reply, _ = await self._call({"op": "spawn", "spec": program.to_json()})
        return int(reply["pid"])

    async def stop(self, name: str, grace_s: float = 5.0) -> None:
        """Ask a process to end, kill it after ``grace_s``. Returns at once; an event follows."""
        await self._call({"op": "stop", "name": name, "grace_s": grace_s})

    async def processes(self) -> dict[str, Running]:
        reply, _ = await self._call({"op": "list"})
        return {
            p["name"]: Running(p["name"], p["pid"], p["restarts"], p["stopping"]) for p in reply["processes"]
        }

    async def pid(self) -> int:
        reply, _ = await self._call({"op": "list"})
        return int(reply["pid"])

    async def end(self) -> None:
        """Ask the keeper to end with everything that it keeps."""
        await self._call({"op": "shutdown"})

    async def hand_over(self, run: Path) -> None:
        """Give the sockets that are in use to the next keeper. Raises :class:`KeeperError` where none listens
        yet, or it went away."""
        successor = await KeeperClient.connect(run)
        try:
            for key, sock in self._opened.items():
                if sock.fileno() >= 0:
                    await successor._call({"op": "give", "key": key}, given=sock)
        finally:
            successor.close()

    async def _open(self, key: str, kind: str, address: str, port: int, mode: int = -1) -> socket.socket:
        request = {"op": "open", "key": key, "kind": kind, "address": address, "port": port, "mode": mode}
        sock = _socket_of(await self._call(request, True))
        sock.setblocking(False)
        self._opened[key] = sock
        return sock

    async def _call(
        self, request: dict[str, Any], wants_fd: bool = False, given: socket.socket | None = None
    ) -> tuple[dict[str, Any], list[int]]:
        self._number += 1
        request["id"] = self._number
        data = json.dumps(request).encode() + b"\n"
        if self.lost.is_set():
            raise KeeperError("the keeper has gone")
        future: asyncio.Future[tuple[dict[str, Any], list[int]]] = self._loop.create_future()
        self._calls[self._number] = future
        number = self._number
        try:
            if given is None:
                await asyncio.wait_for(self._loop.sock_sendall(self._socket, data), CALL_TIMEOUT_S)
            else:
                # One at a time and each answered: the socket's buffer is empty here.
                socket.send_fds(self._socket, [data], [given.fileno()])
            reply, descriptors = await asyncio.wait_for(future, CALL_TIMEOUT_S)
        except TimeoutError as error:
            raise KeeperError(f"the keeper did not answer within {CALL_TIMEOUT_S:g} s") from error
        except OSError as error:
            raise KeeperError(f"the keeper has gone: {error.strerror or error}") from error
        finally:
            self._calls.pop(number, None)
        if "error" in reply:
            _close_all(descriptors)
            raise KeeperError(str(reply["error"]))
        if wants_fd and not descriptors:
            raise KeeperError("the keeper sent no descriptor")
        return dict(reply["ok"]), descriptors

    def _receive(self) -> None:
        try:
            data, descriptors, _, _ = socket.recv_fds(self._socket, MAX_PACKET_BYTES, MAX_DESCRIPTORS)
        except BlockingIOError:
            return
        except OSError:
            data, descriptors = b"", []
        if not data:
            self._gone()
            return
        message = json.loads(data)
        if "event" in message:
            self._event(message)
            return
        call = self._calls.get(message["id"])
        if call is None or call.done():
            _close_all(descriptors)
        else:
            call.set_result((message, descriptors))

    def _event(self, message: dict[str, Any]) -> None:
        kind = message["event"]
        if kind == "shutdown":
            self.shutdown.set()
        elif kind == "start":
            self.on_process(
                ProcessEvent(message["name"], message["pid"], ended=False, restarts=message["restarts"])
            )
        elif kind == "exit":
            name, pid, status = message["name"], message["pid"], message["status"]
            self.on_process(ProcessEvent(name, pid, True, status, message["restarting"]))

    def _gone(self) -> None:
        self._loop.remove_reader(self._socket.fileno())
        self.lost.set()
        for call in self._calls.values():
            if not call.done():
                call.set_exception(KeeperError("the keeper has gone"))


def _socket_of(reply: tuple[dict[str, Any], list[int]]) -> socket.socket:
    first, *rest = reply[1]
    _close_all(rest)
    sock = socket.socket(fileno=first)
    sock.set_inheritable(False)
    return sock


def _close_all(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
