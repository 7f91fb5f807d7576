"""Connections by rules through a real Envoy: weights, server names, servers that speak first.

As in ``test_on_demand``, the listeners stand at the very address that clients dial.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

from tests.integration.translate.test_on_demand import DIALLED, DISABLED, Lazy, running
from tests.support.waiting import until
from tests.support.world import World

SUBSETS = """
    kind: DestinationRule
    metadata: {name: db}
    spec: {host: db, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]}
    ---
    kind: Service
    metadata: {name: dialled}
    spec: {clusterIP: CLUSTER_IP, selector: {app: db}, ports: [{name: tcp, port: 5432}]}
""".replace("CLUSTER_IP", DIALLED)
SPLIT = """
    kind: VirtualService
    metadata: {name: dialled}
    spec:
      hosts: [dialled, db]
      tcp:
      - route:
        - {destination: {host: db, subset: v1, port: {number: 5432}}, weight: V1}
        - {destination: {host: db, subset: v2, port: {number: 5432}}, weight: V2}
"""


def split(one: int, two: int) -> str:
    return SPLIT.replace("V1", str(one)).replace("V2", str(two))


def made(rules: str) -> World:
    world = World().service("db", 5432, "tcp", versions=("v1", "v2")).service("reviews")
    for number, workload in enumerate(world.workloads, 1):
        world.workloads[number - 1] = replace(workload, published_address=f"127.97.68.{number}")
    return world.apply(DISABLED).apply(SUBSETS).apply(rules)


@contextlib.asynccontextmanager
async def captured(world: World) -> AsyncIterator[Lazy]:
    """A client whose connections to the dialled address are captured; databases that greet by their name."""
    servers = [await greet("v1", "127.97.68.1"), await greet("v2", "127.97.68.2")]
    changes: dict[str, Any] = {"outbound_address": DIALLED, "outbound_tcp_port": 5432}
    try:
        async with running(world, explicit_port=0, **changes) as lazy:
            yield lazy
    finally:
        for server in servers:
            server.close()


async def greet(name: str, address: str) -> asyncio.Server:
    """A server that speaks first, and answers what it hears."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"{name}\n".encode())
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while line := await reader.readline():
                writer.write(line)
        writer.close()

    return await asyncio.start_server(talk, address, 5432)


async def greeting(address: str = DIALLED, port: int = 5432) -> str:
    """What the server says before the client has said anything; empty: nothing, the connection is closed."""
    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_connection(address, port)
        try:
            return (await reader.readline()).decode().strip()
        finally:
            writer.close()


async def test_weights_split_connections_and_servers_speak_first() -> None:
    async with captured(made(split(3, 1))):
        assert await greeting() in ("v1", "v2"), "the first connection, which all is asked for"
        said = Counter([await greeting() for _ in range(200)])
    assert set(said) == {"v1", "v2"}
    assert 120 <= said["v1"] <= 180


async def test_a_change_of_weights_holds_for_the_next_connection() -> None:
    world = made(split(1, 0))
    async with captured(world) as lazy:
        assert {await greeting() for _ in range(10)} == {"v1"}
        for rules, expected in ((split(1, 1), {"v1", "v2"}), (split(0, 1), {"v2"})):
            world.texts[-1] = rules.replace("\n    ", "\n")
            update(lazy, world)
            await until(lambda wanted=expected: said(wanted))


async def said(names: set[str]) -> bool:
    """Whether a dozen connections meet just these servers."""
    return {await greeting() for _ in range(12)} == names


def update(lazy: Lazy, world: World) -> None:
    """The controller's part of a change: what differs between two snapshots."""
    told = lazy.world
    old, new = told.engine.snapshot, world.snapshot()
    keys = {*old.facts, *new.facts}
    changed, _ = old.with_changes({key: new.get(key) for key in keys})
    names = told.engine.update(changed, frozenset(k for k in keys if old.get(k) != changed.get(k)))
    assert told.channel is not None
    told.channel.changed(names)


async def test_connect_passes_through_the_rules() -> None:
    async with running(made(split(1, 1))) as lazy:
        servers = [await greet("v1", "127.97.68.1"), await greet("v2", "127.97.68.2")]
        said = set()
        async with asyncio.timeout(20):
            while said != {"v1", "v2"}:
                reader, writer = await asyncio.open_connection("127.0.0.1", lazy.ports["explicit"])
                writer.write(b"CONNECT db:5432 HTTP/1.1\r\nhost: db:5432\r\n\r\n")
                assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
                said.add((await reader.readline()).decode().strip())
                writer.close()
        for server in servers:
            server.close()


async def test_server_names_choose_the_destination_unopened() -> None:
    rules = """
        kind: VirtualService
        metadata: {name: dialled}
        spec:
          hosts: [dialled, "*.example.com"]
          tls:
          - match: [{sniHosts: [a.example.com]}]
            route: [{destination: {host: db, subset: v1, port: {number: 5432}}}]
          - match: [{sniHosts: ["*.example.com"]}]
            route: [{destination: {host: db, subset: v2, port: {number: 5432}}}]
    """
    async with captured(made(rules)):
        # The servers speak no TLS: that their greeting arrives instead of a handshake is what tells.
        assert await hello("a.example.com") == "v1"
        assert await hello("b.example.com") == "v2"
        assert await hello("other.test") in ("v1", "v2"), "the service itself"


async def hello(name: str) -> str:
    """The first line that comes back for a TLS greeting with that server name."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname=name)
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_connection(DIALLED, 5432)
        writer.write(outgoing.read())
        try:
            return (await reader.readline()).decode().strip()
        finally:
            writer.close()
