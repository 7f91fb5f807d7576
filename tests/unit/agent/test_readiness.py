"""When a proxy is ready: when its listeners take connections, not when it says that it is up."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from retia.agent import envoy
from retia.agent.envoy import EnvoyError
from retia.agent.readiness import REMEDY_S, Awaited, expected_listeners
from retia.agent.world import ProxyWorld
from retia.api.local import UpstreamSpec
from retia.model.resource import Built, Name, TypeUrl
from retia.xds.wire import encode

CAPTURED = frozenset({"inbound", "outbound-http", "outbound-auto", "outbound-tcp"})
HTTP = Name(TypeUrl.LISTENER, "outbound-http")


class Proxy:
    """A proxy as far as it concerns its readiness."""

    def __init__(self) -> None:
        self.world = ProxyWorld(lambda _: None, lambda _: None, lambda _: None)
        self.xds = SimpleNamespace(nacked={}, acked={})
        self.now = 100.0

    def awaited(self, **record: Any) -> Awaited:
        return Awaited(a_record(**record), self, lambda: self.now)  # type: ignore[arg-type]

    def give(self, *names: str) -> None:
        built = [encode(TypeUrl.LISTENER, Built(name, b"1")) for name in names]
        self.world.apply(built, [])


def a_record(
    capture: str = "ebpf",
    gateway: bool = False,
    upstreams: tuple[UpstreamSpec, ...] = (),
    ports: tuple[int, ...] = (9080,),
) -> Any:
    return SimpleNamespace(capture=capture, gateway=gateway, upstreams=upstreams, ports=ports)


def test_every_way_out_is_expected() -> None:
    upstream = UpstreamSpec(host="reviews", port=9080, local_port=4100)
    assert expected_listeners(a_record()) == CAPTURED
    assert expected_listeners(a_record("explicit", upstreams=(upstream,))) == {
        "inbound",
        "explicit",
        "upstream-4100",
    }
    assert expected_listeners(a_record(ports=())) == CAPTURED - {"inbound"}
    assert expected_listeners(a_record(gateway=True)) == frozenset()


def test_listeners_that_have_not_come_are_awaited() -> None:
    proxy = Proxy()
    awaited = proxy.awaited()
    assert awaited() == CAPTURED
    proxy.give("inbound", "outbound-tcp")
    proxy.now += 60
    assert awaited() == CAPTURED


def test_what_else_a_proxy_is_given_is_awaited_too() -> None:
    proxy = Proxy()
    proxy.give("http.80")
    awaited = proxy.awaited(gateway=True)
    assert awaited() == {"http.80"}
    proxy.now += REMEDY_S
    assert awaited() == frozenset(), "its certificate may be missing"


@pytest.mark.parametrize("why", ["refused", "withheld"])
def test_a_listener_that_is_not_to_be_had_is_given_up_after_a_while(why: str) -> None:
    proxy = Proxy()
    proxy.give(*CAPTURED)
    if why == "refused":
        proxy.xds.nacked[HTTP] = ("1", "wrong")
    else:
        proxy.world.apply([], [HTTP])
    awaited = proxy.awaited()
    assert awaited() == CAPTURED, "another form of it may follow at once"
    proxy.now += REMEDY_S
    assert awaited() == CAPTURED - {"outbound-http"}


def test_a_listener_that_is_in_force_in_an_older_form_stays_awaited() -> None:
    proxy = Proxy()
    proxy.give(*CAPTURED)
    proxy.xds.nacked[HTTP] = ("2", "wrong")
    proxy.xds.acked[HTTP] = "1"
    awaited = proxy.awaited()
    awaited()
    proxy.now += 60
    assert awaited() == CAPTURED


class Admin:
    """An Envoy's admin interface: up, with some listeners."""

    def __init__(self) -> None:
        self.listeners: list[str] = []
        self.asked = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        target = (await reader.readuntil(b"\r\n\r\n")).split(b" ", 2)[1]
        body = b"LIVE\n"
        if target.startswith(b"/listeners"):
            statuses = [{"name": name} for name in self.listeners]
            body = json.dumps({"listener_statuses": statuses} if statuses else {}).encode()
            self.asked.set()
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + body)
        writer.close()


@pytest.fixture
async def admin(tmp_path: Path) -> AsyncIterator[Admin]:
    admin = Admin()
    async with await asyncio.start_unix_server(admin.serve, str(tmp_path / "admin.sock")):
        yield admin


def names(*listeners: str) -> Callable[[], tuple[str, ...]]:
    return lambda: listeners


async def test_a_proxy_that_is_up_without_its_listeners_is_not_ready(admin: Admin, tmp_path: Path) -> None:
    ready = asyncio.create_task(envoy.wait_ready(tmp_path, 10, names("inbound", "outbound-http")))
    admin.listeners = ["inbound"]
    await admin.asked.wait()
    assert not ready.done()
    admin.listeners = ["inbound", "outbound-http"]
    await ready


async def test_it_says_which_listener_is_missing(admin: Admin, tmp_path: Path) -> None:
    with pytest.raises(EnvoyError, match=r"not ready after 0.2 s: it has no listener inbound, outbound-http"):
        await envoy.wait_ready(tmp_path, 0.2, names("outbound-http", "inbound"))


async def test_a_proxy_of_which_nothing_is_awaited_is_ready_when_it_is_up(
    admin: Admin, tmp_path: Path
) -> None:
    await envoy.wait_ready(tmp_path, 10)
