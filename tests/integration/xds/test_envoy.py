"""A stock Envoy against the stream machine: the rules of lazy configuration, as requests see them."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from retia.model.resource import Name, TypeUrl
from retia.xds.stream import Acked, Wanted
from tests.support.waiting import until

if TYPE_CHECKING:
    from tests.integration.xds.conftest import Setup

CDS, EDS, VHDS = TypeUrl.CLUSTER, TypeUrl.ENDPOINTS, TypeUrl.VIRTUAL_HOST


async def test_a_service_arrives_with_its_first_request(setup: Setup) -> None:
    setup.world.service("shop", setup.backend_port)
    assert not [e for e in setup.world.events if isinstance(e, Wanted) and e.name.type is VHDS]
    started = time.monotonic()
    assert await setup.get("shop") == (200, "hi")
    assert time.monotonic() - started < 2
    assert Wanted(Name(VHDS, "out/shop")) in setup.world.events


async def test_an_unknown_host_is_refused_at_once_and_served_when_it_comes(setup: Setup) -> None:
    started = time.monotonic()
    assert (await setup.get("late"))[0] == 404
    assert time.monotonic() - started < 2
    setup.world.service("late", setup.backend_port)
    await until(lambda: _acked(setup, VHDS, "out/late.default"))
    assert await setup.get("late") == (200, "hi")


async def test_many_hosts_at_once(setup: Setup) -> None:
    names = [f"shop{n}" for n in range(20)]
    for name in names:
        setup.world.service(name, setup.backend_port)
    answers = await asyncio.gather(*(setup.get(name) for name in names))
    assert {status for status, _ in answers} == {200}


async def test_a_refused_resource_does_not_hold_up_the_others(setup: Setup) -> None:
    setup.world.service("good", setup.backend_port)
    setup.world.service("other", setup.backend_port)
    assert (await setup.get("good"))[0] == 200
    # A connection that is refused by Envoy's own validation, in one response with a good change.
    bad = {"name": "bad", "connect_timeout": "1s", "type": "EDS"}
    setup.world.put(CDS, "bad", bad)
    route = {"match": {"prefix": "/"}, "route": {"cluster": "bad"}}
    host = {"name": "out/bad", "domains": ["bad"], "routes": [route]}
    setup.world.put(VHDS, "out/bad", host, refs=(Name(CDS, "bad"), Name(CDS, "other")))
    assert (await setup.get("bad"))[0] == 503
    await until(setup.world.nacks)
    assert [n.resource.name for n in setup.world.nacks()] == ["bad"]
    assert (await setup.get("other"))[0] == 200
    assert (await setup.get("good"))[0] == 200


async def test_a_bad_virtual_host_is_isolated(setup: Setup) -> None:
    for name in ("a", "b", "c"):
        setup.world.service(name, setup.backend_port)
    setup.world.put(VHDS, "out/bad", {"name": "out/bad", "domains": ["bad"], "routes": [{"match": {}}]})
    answers = await asyncio.gather(*(setup.get(name) for name in ("a", "bad", "b", "c")))
    assert [status for status, _ in answers] == [200, 404, 200, 200]
    assert [n.resource.name for n in setup.world.nacks()] == ["out/bad"]


async def test_a_changed_cluster_does_not_freeze_the_others(setup: Setup) -> None:
    setup.world.service("shop", setup.backend_port)
    setup.world.service("next", setup.backend_port)
    assert (await setup.get("shop"))[0] == 200
    setup.world.cluster("shop", setup.backend_port, connect_timeout_s=2)
    version = setup.world.resources[Name(CDS, "shop")].version
    await until(lambda: _acked(setup, CDS, "shop", version), timeout_s=3)
    started = time.monotonic()
    assert (await setup.get("next"))[0] == 200
    assert time.monotonic() - started < 2


async def test_a_restarted_server_sends_nothing_again(setup: Setup) -> None:
    setup.world.service("shop", setup.backend_port)
    assert (await setup.get("shop"))[0] == 200
    await until(lambda: _acked(setup, EDS, "shop"))
    await setup.controller.stop()
    assert (await setup.get("shop"))[0] == 200
    setup.world.events.clear()
    await setup.controller.start()
    await until(lambda: setup.world.channel is not None)
    await until(lambda: Wanted(Name(EDS, "shop")) in setup.world.events)
    setup.world.service("new", setup.backend_port)
    assert (await setup.get("new"))[0] == 200
    again = {e.resource.name for e in setup.world.events if isinstance(e, Acked)}
    assert again <= {"new", "out/new.default"}


async def test_a_new_host_waits_for_the_server_to_come_back(setup: Setup) -> None:
    setup.world.service("shop", setup.backend_port)
    await setup.controller.stop()
    request = asyncio.create_task(setup.get("shop"))
    await asyncio.sleep(0.1)
    await setup.controller.start()
    assert await request == (200, "hi")


async def test_endpoints_that_change_are_followed(setup: Setup) -> None:
    setup.world.service("shop", 1)
    assert (await setup.get("shop"))[0] == 503
    setup.world.cluster("shop", setup.backend_port)
    version = setup.world.resources[Name(EDS, "shop")].version
    await until(lambda: _acked(setup, EDS, "shop", version))
    assert (await setup.get("shop"))[0] == 200


def _acked(setup: Setup, type_url: TypeUrl, name: str, version: str = "") -> bool:
    return any(
        isinstance(e, Acked)
        and e.resource.type is type_url
        and e.resource.name == name
        and version in ("", e.resource.version)
        for e in setup.world.events
    )
