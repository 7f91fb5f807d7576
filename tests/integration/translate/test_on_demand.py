"""A real Envoy that is told everything on demand by the generated resources: the whole path but the agent.

Captured traffic needs the kernel; here the explicit listeners are used, whose resources are made by the same
code. Peers take plaintext (DISABLE), since there is no agent to serve keys.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from retia.cli.tour.stage import free_port
from retia.model.mesh import Upstream
from retia.model.resource import Name, Resource, TypeUrl
from retia.translate.translate import build, listed
from retia.xds.cache import Engine
from tests.integration.xds.conftest import Controller, Envoy, SmallWorld
from tests.support.world import Mesh, World, fqdn

DISABLED = "kind: PeerAuthentication\nmetadata: {name: pa}\nspec: {mtls: {mode: DISABLE}}"
RULES = """
    kind: VirtualService
    metadata: {name: reviews}
    spec:
      hosts: [reviews]
      http:
      - match: [{headers: {end-user: {exact: jason}}}]
        route: [{destination: {host: reviews, subset: v2}}]
      - match: [{uri: {prefix: /missing}}]
        route: [{destination: {host: reviews, subset: v9}}]
      - match: [{uri: {prefix: /broken}}]
        fault: {abort: {httpStatus: 418, percentage: {value: 100}}}
        route: [{destination: {host: reviews}}]
      - match: [{uri: {prefix: /slow}}]
        route: [{destination: {host: reviews, subset: v1}}]
      - match: [{uri: {prefix: /late}}]
        timeout: 300ms
        route: [{destination: {host: reviews, subset: v1}}]
      - route: [{destination: {host: reviews, subset: v1}}]
    ---
    kind: DestinationRule
    metadata: {name: reviews}
    spec:
      host: reviews
      subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]
"""
DIALLED = "127.97.67.1"
"""Stands for a virtual address and for the address of the outbound listeners at once."""
SLOW_S = 7.0
"""Longer than the 6 s that bound a hanging first request."""


class EngineWorld(SmallWorld):
    """What the translator says, through the tracked cache."""

    def __init__(self, mesh: Mesh) -> None:
        super().__init__()
        self.proxy = mesh.proxy
        self.engine = Engine(mesh.snapshot, build, listed)

    def get(self, name: Name) -> Resource | None:
        return self.engine.resource(self.proxy, name)

    def listed(self, type_url: TypeUrl) -> tuple[str, ...]:
        return self.engine.listed(self.proxy, type_url)


class Lazy:
    """The Envoy of a client; ``get`` sends a request through its forward proxy."""

    def __init__(self, ports: dict[str, int], world: EngineWorld, admin: Path) -> None:
        self.ports = ports
        self.world = world
        self.admin = admin

    async def stats(self, pattern: str) -> str:
        """The statistics whose names have ``pattern``, a line each."""
        async with asyncio.timeout(5):
            reader, writer = await asyncio.open_unix_connection(str(self.admin))
            try:
                head = f"GET /stats?filter={pattern} HTTP/1.1\r\nhost: a\r\nconnection: close"
                writer.write(f"{head}\r\n\r\n".encode())
                return (await reader.read()).decode()
            finally:
                writer.close()

    async def get(self, url: str, **headers: str) -> tuple[int, str]:
        authority = url.partition("/")[0]
        extra = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        text = f"GET http://{url} HTTP/1.1\r\nhost: {authority}\r\nconnection: close\r\n{extra}\r\n"
        return await self.talk(self.ports["explicit"], text)

    async def talk(self, port: int, text: str, address: str = "127.0.0.1") -> tuple[int, str]:
        async with asyncio.timeout(15):
            reader, writer = await asyncio.open_connection(address, port)
            try:
                writer.write(text.encode())
                head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
            finally:
                writer.close()
        return int(head.split()[1]), body


async def serve(name: str, address: str, port: int) -> asyncio.Server:
    """An HTTP server that says its name; paths with ``slow`` or ``late`` take their time."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if b" /slow" in head:
                    await asyncio.sleep(SLOW_S)
                if b" /late" in head:
                    await asyncio.sleep(1)
                host = next(line for line in head.decode().lower().split("\r\n") if line.startswith("host:"))
                body = f"{name} {host[5:].strip()}"
                writer.write(f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode())
        writer.close()

    return await asyncio.start_server(answer, address, port)


def made(**settings: Any) -> World:
    world = World(**settings).service("reviews", versions=("v1", "v2")).service("db", 5432, "tcp")
    for number, workload in enumerate(world.workloads, 1):
        world.workloads[number - 1] = replace(workload, published_address=f"127.97.66.{number}")
    return world.apply(DISABLED).apply(RULES)


@contextlib.asynccontextmanager
async def running(world: World, **changes: Any) -> AsyncIterator[Lazy]:
    ports = {name: free_port() for name in ("explicit", "http", "tcp")}
    upstreams = (Upstream(ports["http"], fqdn("reviews"), 9080), Upstream(ports["tcp"], fqdn("db"), 5432))
    defaults: dict[str, Any] = {
        "explicit_port": ports["explicit"],
        "outbound_address": "127.0.0.1",
        "outbound_http_port": 0,
        "outbound_auto_port": 0,
        "outbound_tcp_port": 0,
        "inbound_address": "",
        "upstreams": upstreams,
    }
    mesh = world.client(**{**defaults, **changes})
    servers = [
        await serve("v1", "127.97.66.1", 9080),
        await serve("v2", "127.97.66.2", 9080),
        await serve("db", "127.97.66.3", 5432),
    ]
    told = EngineWorld(mesh)
    with tempfile.TemporaryDirectory(prefix="retia-", dir=os.environ.get("TMPDIR", "/tmp")) as name:
        envoy = Envoy(Path(name))
        controller = Controller(told, envoy.xds_path)
        await controller.start()
        await envoy.start()
        try:
            for port in ports.values():
                if port != ports["explicit"] or mesh.proxy.explicit_port:
                    await opened("127.0.0.1", port)
            if mesh.proxy.outbound_http_port:
                await opened(mesh.proxy.outbound_address, mesh.proxy.outbound_http_port)
            yield Lazy(ports, told, Path(name) / "admin.sock")
            assert not told.nacks(), [str(n) for n in told.nacks()]
        finally:
            await envoy.stop()
            await controller.stop()
            for server in servers:
                server.close()


async def opened(address: str, port: int) -> None:
    async with asyncio.timeout(10):
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection(address, port)
                writer.close()
                return
            await asyncio.sleep(0.02)


async def test_requests_find_their_way_on_demand() -> None:
    async with running(made()) as lazy:
        assert await lazy.get("reviews:9080/") == (200, "v1 reviews:9080")
        assert (await lazy.get("reviews:9080/", end_user="jason"))[1].startswith("v2")
        assert (await lazy.get("reviews.default:9080/"))[1].startswith("v1")
        assert (await lazy.get("127.97.66.2:9080/"))[1].startswith("v2"), "a dialled endpoint is kept"
        assert (await lazy.get("reviews:9080/missing"))[0] == 503
        assert (await lazy.get("reviews:9080/broken"))[0] == 418
        assert (await lazy.get("reviews:9080/late"))[0] == 504


async def test_captured_connections_are_told_apart_by_port_and_first_bytes() -> None:
    """Without a kernel that redirects, the listeners stand at the very ports that clients dial."""
    world = made().service("guess", 7000, "auto", tier="dialled")
    world.workloads[2] = replace(world.workloads[2], labels=(("tier", "dialled"),))
    world.apply(f"""
        kind: Service
        metadata: {{name: dialled}}
        spec:
          clusterIP: {DIALLED}
          selector: {{tier: dialled}}
          ports: [{{name: tcp, port: 5432}}, {{name: what, port: 7000}}]
    """)
    world.workloads[-1] = replace(world.workloads[-1], published_address="127.97.66.4")
    captured = {"outbound_http_port": 9080, "outbound_auto_port": 7000, "outbound_tcp_port": 5432}
    guess = await serve("guess", "127.97.66.4", 7000)
    async with running(world, outbound_address=DIALLED, explicit_port=0, **captured) as lazy:
        text = "GET / HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n"
        assert (await lazy.talk(9080, text.format("reviews"), DIALLED))[1] == "v1 reviews"
        assert (await lazy.talk(7000, text.format("guess"), DIALLED))[1] == "guess guess"
        for port, who in ((5432, b"db x"), (7000, b"guess x")):
            reader, writer = await asyncio.open_connection(DIALLED, port)
            async with asyncio.timeout(5):
                if port == 7000:
                    await asyncio.sleep(0.3)  # the client keeps silent until detection gives up
                writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
                assert (await reader.readuntil(who)).startswith(b"HTTP/1.1 200")
            writer.close()
    guess.close()


async def test_local_ports_stand_for_services() -> None:
    async with running(made()) as lazy:
        request = "GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"

        assert await lazy.talk(lazy.ports["http"], request) == (200, f"v1 {fqdn('reviews')}:9080")
        reader, writer = await asyncio.open_connection("127.0.0.1", lazy.ports["tcp"])
        writer.write(b"GET / HTTP/1.1\r\nhost: db\r\n\r\n")
        async with asyncio.timeout(5):
            assert (await reader.readuntil(b"db db")).startswith(b"HTTP/1.1 200")
        writer.close()


async def test_connect_carries_bytes() -> None:
    async with running(made()) as lazy, asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", lazy.ports["explicit"])
        writer.write(b"CONNECT db:5432 HTTP/1.1\r\nhost: db:5432\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        writer.write(b"GET / HTTP/1.1\r\nhost: inner\r\n\r\n")
        assert (await reader.readuntil(b"db inner")).startswith(b"HTTP/1.1 200")
        writer.close()


@pytest.mark.parametrize(("allow_any", "status"), [(True, 200), (False, 404)])
async def test_hosts_outside_the_mesh_are_passed_on_or_refused(allow_any: bool, status: int) -> None:
    async with running(made(outbound_allow_any=allow_any)) as lazy:
        outside = await serve("outside", "127.0.0.1", 0)
        port = outside.sockets[0].getsockname()[1]

        assert (await lazy.get(f"localhost:{port}/"))[0] == status
        outside.close()


async def test_a_slow_answer_to_a_first_request_lives() -> None:
    """The bound on hanging first requests must not cut an answer that is merely slow."""
    async with running(made()) as lazy:
        assert (await lazy.get("reviews:9080/slow"))[0] == 200
