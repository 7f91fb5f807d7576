"""How far what one object shaped has come: which proxies hold which version.

Nothing is recorded for this ahead of time. A resource knows the objects that shaped it (its provenance), a
feed knows what its proxy wants, and a proxy's statuses say what it has acknowledged; the answer is the three
put together at the moment of the question.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from retia.control.core import Core
from retia.control.registry import ProxyState
from retia.model.objects import ObjectRef
from retia.model.resource import Name, Resource, TypeUrl

STEP = 500
"""Names looked at before others get a turn."""


@dataclass(frozen=True, slots=True)
class Item:
    """One resource at one proxy. ``state``: acked, pending, nacked, quarantined."""

    proxy: str
    name: Name
    wanted: str
    acked: str
    state: str
    error: str = ""


@dataclass(slots=True)
class Sync:
    """How one type stands at one proxy."""

    wanted: int = 0
    acked: int = 0


def state_of(core: Core, proxy: ProxyState, resource: Resource) -> Item:
    """How far one resource is at one proxy."""
    name = Name(resource.type, resource.name)
    acked = proxy.acked.get(name, "")
    refused = proxy.nacked.get(name)
    refusal = core.quarantine.refusals.get(resource.version)
    if acked == resource.version:
        state, error = "acked", ""
    elif refused is not None and refused[0] == resource.version:
        state, error = "nacked", refused[1]
    elif refusal is not None:
        state, error = "quarantined", refusal.error
    elif refused is not None:
        # The version that was refused is withheld; what is served instead may still be on its way.
        state, error = "quarantined", refused[1]
    else:
        state, error = "pending", ""
    return Item(proxy.proxy.id, name, resource.version, acked, state, error)


async def of_object(core: Core, ref: ObjectRef) -> list[Item]:
    """All resources that an object shaped, at all proxies that want them."""
    items: list[Item] = []
    looked = 0
    for _, proxy in list(core.registry.all_proxies()):
        seen: set[Name] = set()
        for name in names_of(core, proxy):
            looked += 1
            if looked % STEP == 0:
                await asyncio.sleep(0)
            resource = core.pipeline.engine.resource(proxy.proxy, name)
            own = Name(resource.type, resource.name)
            if own in seen or not any(p.ref == ref for p in resource.provenance):
                continue
            seen.add(own)
            if resource.exists:
                items.append(state_of(core, proxy, resource))
    return sorted(items, key=lambda i: (i.proxy, str(i.name)))


def sync_of(core: Core, proxy: ProxyState) -> dict[TypeUrl, Sync]:
    """How all types stand at a proxy."""
    found: dict[TypeUrl, Sync] = defaultdict(Sync)
    seen: set[Name] = set()
    for name in names_of(core, proxy):
        resource = core.pipeline.engine.resource(proxy.proxy, name)
        own = Name(resource.type, resource.name)
        if not resource.exists or own in seen:
            continue
        seen.add(own)
        found[own.type].wanted += 1
        if proxy.acked.get(own) == resource.version:
            found[own.type].acked += 1
    return dict(found)


def names_of(core: Core, proxy: ProxyState) -> Iterable[Name]:
    """The names that a proxy really has: what it acknowledged or refused, and what was sent for it to have.

    Names that were only sent ahead of use to its agent, and that it never took, aren't its concern.
    """
    session = core.sessions.get(str(proxy.proxy.host))
    feed = session.feeds.get(proxy.proxy.id) if session else None
    wanted = tuple(feed.requested) if feed else ()
    return dict.fromkeys((*wanted, *proxy.acked, *proxy.nacked))
