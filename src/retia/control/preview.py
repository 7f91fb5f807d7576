"""What applying some documents would change in the proxies, without applying them.

The change is made to a copy of the facts, and two engines of their own build what every proxy holds before
and after; the one that serves the proxies is left alone. It is all done beside the loop: the facts are
immutable, and nothing of the controller is read while building.
"""

from __future__ import annotations

import asyncio
import difflib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from envoy.service.discovery.v3 import discovery_pb2

from retia.api import schema
from retia.config.parse import Parsed
from retia.control import delivery
from retia.control.core import Core
from retia.control.editing import Editing
from retia.explain.resources import plain
from retia.model.ids import Host
from retia.model.mesh import MeshSettings, Proxy
from retia.model.objects import ConfigObject, ObjectRef
from retia.model.resource import Name, Resource, TypeUrl
from retia.model.snapshot import Snapshot
from retia.policy.facts import FactBase
from retia.translate.translate import build, listed
from retia.xds.cache import Engine
from retia.xds.wire import absent

LISTS = (TypeUrl.CLUSTER, TypeUrl.LISTENER, TypeUrl.VIRTUAL_HOST)
TEXT_LIMIT = 200_000
"""Characters of differences in one answer. Arbitrary."""
_Resource: Any = discovery_pb2.Resource  # type: ignore[attr-defined, unused-ignore]


@dataclass(frozen=True, slots=True)
class _Held:
    """A proxy and the names that it has."""

    proxy: Proxy
    names: tuple[Name, ...]


@dataclass(frozen=True, slots=True)
class _Change:
    name: Name
    action: str
    objects: tuple[str, ...]
    text: str


async def diff(core: Core, editing: Editing, request: schema.DiffRequest) -> schema.DiffResult:
    """Compare; nothing is stored."""
    applied = await editing.apply(schema.ApplyRequest(documents=request.documents, dry_run=True))
    if any(f.level == "error" for f in applied.findings):
        return schema.DiffResult(findings=applied.findings)
    parsed = await editing.parse(request.documents)
    held = [
        _Held(state.proxy, tuple(delivery.names_of(core, state))) for _, state in core.registry.all_proxies()
    ]
    before = core.pipeline.engine.snapshot
    after = await asyncio.to_thread(_after, core, before, parsed)
    groups, unchanged = await asyncio.to_thread(_compare, before, after, held, request.full)
    return schema.DiffResult(
        items=applied.items, groups=groups, unchanged=unchanged, findings=applied.findings
    )


def _after(core: Core, before: Snapshot, parsed: Parsed) -> Snapshot:
    """The snapshot as it would be. What other sources put into it stays as it is."""
    facts = core.pipeline.facts
    settings: MeshSettings | None = before.get(("mesh",))
    copy = FactBase(settings or MeshSettings(trust_domain=core.trust_domain))
    copy.put_objects(list(facts.objects.values()))
    copy.put_workloads(list(facts.workloads.values()))
    copy.put_vips({host: service.vip for host, service in list(facts.services.items()) if service.vip})
    copy.take_changes()
    copy.put_objects([_aged(obj, facts.objects, before.revision) for obj in parsed.objects])
    fresh = copy.hosts_without_vip()
    copy.put_vips({Host(host): f"240.240.255.{number % 255}" for number, host in enumerate(fresh, start=1)})
    return before.with_changes(copy.take_changes())[0]


def _aged(obj: ConfigObject, known: Mapping[ObjectRef, ConfigObject], revision: int) -> ConfigObject:
    """With the age that it has, or would get."""
    old = known.get(obj.ref)
    return replace(obj, created=old.created if old is not None else 2**62 + revision)


def _compare(
    before: Snapshot, after: Snapshot, held: Iterable[_Held], full: bool
) -> tuple[list[schema.ProxyDiff], int]:
    old, new = Engine(before, build, listed), Engine(after, build, listed)
    groups: dict[tuple[_Change, ...], list[str]] = defaultdict(list)
    for each in held:
        groups[tuple(_changes(old, new, each, full))].append(each.proxy.id)
    unchanged = len(groups.pop((), []))
    ordered = sorted(groups.items(), key=lambda item: (-len(item[1]), item[1]))
    return [_group(changes, proxies) for changes, proxies in ordered], unchanged


def _changes(old: Engine, new: Engine, held: _Held, full: bool) -> list[_Change]:
    """What differs for one proxy, in the names that it has and those that would come with them."""
    found: dict[Name, _Change] = {}
    names = {*held.names}
    for kind in LISTS:
        names |= {Name(kind, n) for n in {*old.listed(held.proxy, kind), *new.listed(held.proxy, kind)}}
    has = names | {Name(r.type, r.name) for r in (old.resource(held.proxy, n) for n in names) if r.exists}
    seen: set[Name] = set()
    queue = list(names)
    while queue:
        name = queue.pop()
        if name in seen or name.type is TypeUrl.SECRET:
            continue
        seen.add(name)
        was, becomes = old.resource(held.proxy, name), new.resource(held.proxy, name)
        own = Name(becomes.type, (becomes if becomes.exists else was).name)
        if name not in has and own not in has:
            was = absent(name.type, name.name)
        if was.version == becomes.version:
            continue
        if own not in found:
            found[own] = _change(own, was, becomes, full)
        queue += [ref for ref in becomes.refs if ref not in was.refs]
    return [found[name] for name in sorted(found, key=lambda n: (n.type.short, n.name))]


def _change(name: Name, was: Resource, becomes: Resource, full: bool) -> _Change:
    action = "changed" if was.exists and becomes.exists else "added" if becomes.exists else "removed"
    shaping = (becomes if becomes.exists else was).provenance
    objects = tuple(dict.fromkeys(str(p.ref) for p in shaping))
    return _Change(name, action, objects, _text(name, was, becomes) if full else "")


def _text(name: Name, was: Resource, becomes: Resource) -> str:
    lines = difflib.unified_diff(
        _lines(was), _lines(becomes), f"{name} (now)", f"{name} (then)", lineterm="", n=3
    )
    text = "\n".join(lines)
    return text if len(text) <= TEXT_LIMIT else text[:TEXT_LIMIT] + "\n(the rest is not shown)"


def _lines(resource: Resource) -> list[str]:
    if not resource.exists:
        return []
    message = _Resource.FromString(resource.wire).resource
    return json.dumps(plain(message), indent=2, sort_keys=True).splitlines()


def _group(changes: tuple[_Change, ...], proxies: list[str]) -> schema.ProxyDiff:
    return schema.ProxyDiff(
        proxies=sorted(proxies),
        resources=[
            schema.ResourceDiff(
                resource=str(c.name),
                action=c.action,  # type: ignore[arg-type]
                objects=list(c.objects),
                text=c.text,
            )
            for c in changes
        ],
    )
