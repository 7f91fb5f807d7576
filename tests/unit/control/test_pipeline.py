"""What the pipeline does beside making snapshots."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, cast

from retia.control.hub import Hub
from retia.control.pipeline import RELEASE_AFTER_S, Pipeline
from retia.model.ids import Host
from retia.model.mesh import MeshSettings
from retia.sources.vips import Vips
from retia.translate.translate import build, listed
from tests.support.documents import parse_text

ENTRY = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: shop}
spec: {hosts: [shop.example], ports: [{number: 80, name: http}], resolution: STATIC}
"""
SHOP = Host("shop.example")


class FakeVips:
    """Remembers what was given and given back."""

    def __init__(self) -> None:
        self.given: dict[Host, str] = {}
        self.released: list[Host] = []

    def addresses(self) -> Mapping[Host, str]:
        return self.given

    def allocate(self, hosts: Iterable[Host]) -> Mapping[Host, str]:
        self.given |= dict.fromkeys(hosts, "240.240.0.1")
        return {host: self.given[host] for host in hosts}

    def release(self, hosts: Iterable[Host]) -> None:
        for host in hosts:
            self.released.append(host)
            del self.given[host]


def test_a_vanished_host_keeps_its_address_for_a_day() -> None:
    asyncio.run(_vanish())


async def _vanish() -> None:
    vips = FakeVips()
    pipeline = Pipeline(MeshSettings(), cast(Vips, vips), Hub(), build, cast(Any, listed))
    objects = parse_text(ENTRY).objects
    pipeline.facts.put_objects(objects)
    await pipeline.cycle()
    await pipeline.release_vips(0.0)
    assert pipeline.facts.services[SHOP].vip == "240.240.0.1"

    pipeline.facts.put_objects((), removed=[o.ref for o in objects])
    await pipeline.cycle()
    await pipeline.release_vips(1.0)
    await pipeline.release_vips(RELEASE_AFTER_S)
    assert vips.released == []

    await pipeline.release_vips(RELEASE_AFTER_S + 2.0)
    assert vips.released == [SHOP]

    pipeline.facts.put_objects(objects)
    await pipeline.cycle()
    assert pipeline.facts.services[SHOP].vip == "240.240.0.1"
    assert vips.given == {SHOP: "240.240.0.1"}


def test_a_host_that_comes_back_in_time_loses_nothing() -> None:
    asyncio.run(_come_back())


async def _come_back() -> None:
    vips = FakeVips()
    pipeline = Pipeline(MeshSettings(), cast(Vips, vips), Hub(), build, cast(Any, listed))
    objects = parse_text(ENTRY).objects
    for present in (True, False, True):
        pipeline.facts.put_objects(objects if present else (), removed=[] if present else [objects[0].ref])
        await pipeline.cycle()
        await pipeline.release_vips(0.0 if present else 5.0)
    await pipeline.release_vips(RELEASE_AFTER_S * 2)

    assert vips.released == []
