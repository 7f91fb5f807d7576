"""One endpoint changes: how long until each of N streams that end at the controller has it, at what CPU.

The server is a process of its own with the real engine and the real stream service; each client is a
connection of its own that acknowledges what it gets. ``python -m tests.bench.fanout serve SOCKET LOOP`` is
the server; it makes one change for each line on its standard input and prints its CPU seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import select
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from envoy.service.discovery.v3 import discovery_pb2
from h2.config import H2Configuration
from h2.connection import H2Connection

from retia.aio.grpc import Server
from retia.model.mesh import Proxy
from retia.model.resource import Name, Resource, TypeUrl
from retia.xds.server import DELTA_METHOD, XdsService
from retia.xds.server import Channel as StreamChannel
from tests.bench.worlds import Mesh, client, service_host, workload

CLUSTER = f"outbound|9080||{service_host(0)}"
ENDPOINTS = 50


class _Direct:
    """A stream that ends at the controller: its world is the engine as this proxy sees it."""

    def __init__(self, hub: _Hub, proxy: Proxy) -> None:
        self.world = self
        self._hub = hub
        self._proxy = proxy
        self._channel: StreamChannel | None = None

    def get(self, name: Name) -> Resource:
        return self._hub.mesh.engine.resource(self._proxy, name)

    def listed(self, type_url: TypeUrl) -> Sequence[str]:
        return self._hub.mesh.engine.listed(self._proxy, type_url)

    def opened(self, channel: StreamChannel) -> None:
        self._channel = channel
        self._hub.open.add(self)

    def changed(self, names: frozenset[Name]) -> None:
        if self._channel is not None:
            self._channel.changed(names)

    def handle(self, events: list[Any]) -> None:
        pass

    def closed(self) -> None:
        self._hub.open.discard(self)


class _Hub:
    def __init__(self) -> None:
        self.mesh = Mesh(1, ENDPOINTS)
        self.open: set[_Direct] = set()
        self._accepted = 0
        self._there = True

    def accept(self, peer: Any, first: Any) -> _Direct:
        self._accepted += 1
        return _Direct(self, client(self._accepted))

    def change(self) -> None:
        """The last endpoint goes, or comes back."""
        last = workload(0, ENDPOINTS - 1, ENDPOINTS - 1)
        facts = self.mesh.facts
        facts.put_workloads([] if self._there else [last], removed=[last.id] if self._there else [])
        self._there = not self._there
        self.mesh.snapshot, changed = self.mesh.snapshot.with_changes(facts.take_changes())
        affected = self.mesh.engine.update(self.mesh.snapshot, changed)
        for stream in self.open:
            stream.changed(affected)


async def serve(path: str) -> None:
    hub = _Hub()
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(path)
    sock.listen(2048)
    server = Server(XdsService(hub.accept).method)
    await server.listen(sock)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    while line := await reader.readline():
        if line.strip() == b"change":
            hub.change()
        print(json.dumps({"cpu_s": time.process_time(), "streams": len(hub.open)}), flush=True)
    await server.stop()


class _Client:
    """One subscribed stream on a connection of its own, in as few bytes and steps as HTTP/2 allows: what is
    measured is the server, and proxies are not written in Python."""

    _ROOM = 64 << 20
    """Flow-control window: so large that it needs no care in one run."""

    def __init__(self, path: str, poll: select.epoll) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(path)
        poll.register(self._socket, select.EPOLLIN)
        self._data = bytearray()
        self._frames = bytearray()
        h2 = H2Connection(H2Configuration(client_side=True))
        h2.local_settings.initial_window_size = self._ROOM
        h2.initiate_connection()
        h2.increment_flow_control_window(self._ROOM)
        headers = [(":method", "POST"), (":scheme", "http"), (":path", DELTA_METHOD), (":authority", "bench")]
        h2.send_headers(1, [*headers, ("te", "trailers"), ("content-type", "application/grpc+proto")])
        self._socket.sendall(h2.data_to_send())
        self._send(_request(TypeUrl.CLUSTER, subscribe=[CLUSTER]))
        self._send(_request(TypeUrl.ENDPOINTS, subscribe=[CLUSTER]))

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def read(self) -> int:
        """How many times endpoints have arrived; everything is acknowledged."""
        block = self._socket.recv(1 << 16)
        if not block:
            raise ConnectionError("the server closed a stream")
        self._frames += block
        while len(self._frames) >= 9:
            size = int.from_bytes(self._frames[:3], "big")
            if len(self._frames) < 9 + size:
                break
            kind, flags = self._frames[3], self._frames[4]
            body = bytes(self._frames[9 : 9 + size])
            del self._frames[: 9 + size]
            self._frame(kind, flags, body)
        return self._messages()

    def _frame(self, kind: int, flags: int, body: bytes) -> None:
        if kind == _DATA:
            self._data += body
        elif kind in (_SETTINGS, _PING) and not flags & _ACK:
            answer = body if kind == _PING else b""
            self._socket.sendall(len(answer).to_bytes(3, "big") + bytes((kind, _ACK, 0, 0, 0, 0)) + answer)
        elif kind in (_RESET, _GOAWAY):
            raise ConnectionError("the server refused a stream")

    def _messages(self) -> int:
        endpoints = 0
        while len(self._data) >= 5:
            end = 5 + int.from_bytes(self._data[1:5], "big")
            if len(self._data) < end:
                break
            reply = discovery_pb2.DeltaDiscoveryResponse.FromString(bytes(self._data[5:end]))
            del self._data[:end]
            endpoints += reply.type_url == TypeUrl.ENDPOINTS
            self._send(_request(reply.type_url, nonce=reply.nonce))
        return endpoints

    def _send(self, message: bytes) -> None:
        size = len(message)
        head = (size + 5).to_bytes(3, "big") + bytes((_DATA, 0, 0, 0, 0, 1))
        self._socket.sendall(head + b"\0" + size.to_bytes(4, "big") + message)


_DATA, _RESET, _SETTINGS, _PING, _GOAWAY, _ACK = 0, 3, 4, 6, 7, 1


def _request(type_url: str, subscribe: Sequence[str] = (), nonce: str = "") -> bytes:
    request = discovery_pb2.DeltaDiscoveryRequest(type_url=type_url, response_nonce=nonce)
    request.resource_names_subscribe.extend(subscribe)
    return bytes(request.SerializeToString())


class _Fleet:
    """All clients, in this process."""

    def __init__(self, path: str, streams: int) -> None:
        self._poll = select.epoll()
        self._clients: dict[int, _Client] = {}
        for _ in range(streams):
            one = _Client(path, self._poll)
            self._clients[one.fileno()] = one
            self.receive(0)

    def receive(self, wanted: int, seconds: float = 60) -> None:
        """Until endpoints have arrived ``wanted`` times; 0: only what is there."""
        end = time.monotonic() + seconds
        while True:
            for descriptor, _ in self._poll.poll(0 if wanted <= 0 else 1):
                wanted -= self._clients[descriptor].read()
            if wanted <= 0:
                return
            if time.monotonic() > end:
                raise TimeoutError(f"{wanted} streams have not received the change")

    def settle(self) -> None:
        """Until nothing has come for half a second."""
        while ready := self._poll.poll(0.5):
            for descriptor, _ in ready:
                self._clients[descriptor].read()

    def close(self) -> None:
        for one in self._clients.values():
            one.close()
        self._poll.close()


class _Server:
    """The server's process, on the last core; we stay on the others."""

    def __init__(self, path: str, loop: str) -> None:
        command = [sys.executable, "-m", "tests.bench.fanout", "serve", path, loop]
        core = max(os.sched_getaffinity(0))
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        )
        self.ask("ready")

    def tell(self, word: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()

    def answer(self) -> dict[str, float]:
        assert self._process.stdout is not None
        return dict(json.loads(self._process.stdout.readline()))

    def ask(self, word: str) -> dict[str, float]:
        self.tell(word)
        return self.answer()

    def close(self) -> None:
        self._process.kill()
        self._process.communicate(timeout=10)


def measure(streams: int = 1000, rounds: int = 7, loop: str = "asyncio") -> dict[str, Any]:
    """Medians over the rounds. ``loop``: ``asyncio`` or ``uvloop``."""
    times, cpu = [], []
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as opened:
        _raise_file_limit(streams)
        path = str(Path(folder) / "xds.sock")
        server = _Server(path, loop)
        opened.callback(server.close)
        fleet = _Fleet(path, streams)
        opened.callback(fleet.close)
        fleet.settle()
        for _ in range(rounds):
            before = server.ask("cpu")
            start = time.monotonic()
            server.tell("change")
            fleet.receive(streams)
            times.append(time.monotonic() - start)
            server.answer()
            fleet.settle()
            cpu.append(server.ask("cpu")["cpu_s"] - before["cpu_s"])
    return {
        "streams": streams,
        "endpoints": ENDPOINTS,
        "all_received_ms": round(statistics.median(times) * 1000, 1),
        "controller_cpu_ms": round(statistics.median(cpu) * 1000, 1),
        "min_ms": round(min(times) * 1000, 1),
        "max_ms": round(max(times) * 1000, 1),
        "rounds": rounds,
    }


def _raise_file_limit(files: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(4096, 2 * files)), hard))


def _main() -> None:
    if sys.argv[1:2] == ["serve"]:
        _raise_file_limit(4096)
        if sys.argv[3] == "uvloop":
            import uvloop

            uvloop.run(serve(sys.argv[2]))
        else:
            asyncio.run(serve(sys.argv[2]))
    else:
        streams = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
        print(json.dumps(measure(streams, loop=sys.argv[2] if len(sys.argv) > 2 else "asyncio")))


if __name__ == "__main__":
    _main()
