"""One endpoint changes: how long until each of N streams that end at the controller has it, at what CPU.

The server is a process of its own with the real engine and the real stream service; each client is a
connection of its own that acknowledges what it gets. ``python -m tests.bench.fanout serve SOCKET`` is the
server; it makes one change for each line on its standard input and prints its CPU seconds.
"""

from __future__ import annotations

import asyncio
import json
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
from grpclib.client import Channel
from grpclib.const import Cardinality

from retia.aio.grpc import MixedCodec, Server
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
    """One subscribed stream that counts the responses it got."""

    def __init__(self, path: str) -> None:
        self._channel = Channel(path=path, codec=MixedCodec())
        self.responses = 0

    async def run(self, arrived: asyncio.Queue[None]) -> None:
        try:
            async with self._channel.request(DELTA_METHOD, Cardinality.STREAM_STREAM, bytes, bytes) as stream:
                await stream.send_message(_request(TypeUrl.CLUSTER, subscribe=[CLUSTER]))
                await stream.send_message(_request(TypeUrl.ENDPOINTS, subscribe=[CLUSTER]))
                while (data := await stream.recv_message()) is not None:
                    reply = discovery_pb2.DeltaDiscoveryResponse.FromString(data)
                    if reply.type_url == TypeUrl.ENDPOINTS:
                        self.responses += 1
                        arrived.put_nowait(None)
                    await stream.send_message(_request(reply.type_url, nonce=reply.nonce))
        finally:
            self._channel.close()


def _request(type_url: str, subscribe: Sequence[str] = (), nonce: str = "") -> bytes:
    request = discovery_pb2.DeltaDiscoveryRequest(type_url=type_url, response_nonce=nonce)
    request.resource_names_subscribe.extend(subscribe)
    return bytes(request.SerializeToString())


async def _ask(server: asyncio.subprocess.Process, word: str) -> dict[str, float]:
    assert server.stdin is not None and server.stdout is not None  # noqa: PT018
    server.stdin.write(f"{word}\n".encode())
    async with asyncio.timeout(30):
        return dict(json.loads(await server.stdout.readline()))


async def _measure(streams: int, rounds: int, path: str) -> dict[str, Any]:
    server = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.bench.fanout",
        "serve",
        path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    arrived: asyncio.Queue[None] = asyncio.Queue()
    tasks: list[asyncio.Task[None]] = []
    try:
        await _ask(server, "ready")
        for number in range(streams):
            tasks.append(asyncio.create_task(_Client(path).run(arrived), name=f"client-{number}"))
            if number % 50 == 49:
                await asyncio.sleep(0.05)
        async with asyncio.timeout(60):
            for _ in range(streams):
                await arrived.get()
        await asyncio.sleep(2)
        while not arrived.empty():
            arrived.get_nowait()
        times, cpu = [], []
        for _ in range(rounds):
            await asyncio.sleep(0.3)
            before = await _ask(server, "cpu")
            start = time.monotonic()
            await _ask(server, "change")
            async with asyncio.timeout(30):
                for _ in range(streams):
                    await arrived.get()
            times.append(time.monotonic() - start)
            await asyncio.sleep(0.3)
            after = await _ask(server, "cpu")
            cpu.append(after["cpu_s"] - before["cpu_s"])
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        server.kill()
        await server.wait()
    return {
        "streams": streams,
        "endpoints": ENDPOINTS,
        "all_received_ms": round(statistics.median(times) * 1000, 1),
        "controller_cpu_ms": round(statistics.median(cpu) * 1000, 1),
        "rounds": rounds,
    }


def measure(streams: int = 1000, rounds: int = 7) -> dict[str, Any]:
    """Medians over the rounds."""
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(_measure(streams, rounds, str(Path(folder) / "xds.sock")))


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        asyncio.run(serve(sys.argv[2]))
    else:
        print(json.dumps(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)))
