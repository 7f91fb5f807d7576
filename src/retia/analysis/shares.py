"""Weights that look like percentages and are none, and wildcard hosts with a narrower one within."""

from __future__ import annotations

from collections.abc import Iterator

from retia.analysis.world import World, seen_together
from retia.config.codes import Code, finding
from retia.model.finding import Finding
from retia.model.ids import Host, wildcards_of
from retia.model.objects import ConfigObject


def check(world: World) -> Iterator[Finding]:
    for obj in world.kind("VirtualService"):
        yield from _weights(obj)
    yield from _virtual_hosts(world)
    yield from _services(world)


def _weights(obj: ConfigObject) -> Iterator[Finding]:
    for kind in ("http", "tls", "tcp"):
        for index, rule in enumerate(getattr(obj.spec, kind)):
            total = sum(each.weight for each in rule.route)
            if len(rule.route) > 1 and total not in (0, 100):
                shares = ", ".join(f"{each.weight / total:.3g}" for each in rule.route)
                message = f"has weights that add up to {total}, so the shares are {shares}"
                yield finding(Code.UNUSUAL_WEIGHTS, message, ref=obj.ref, field=f"spec.{kind}[{index}].route")


def _virtual_hosts(world: World) -> Iterator[Finding]:
    """The narrower host holds alone; rules of a wildcard that covers it are not added to it."""
    wide: dict[Host, list[tuple[ConfigObject, int]]] = {}
    objects = list(world.kind("VirtualService"))
    for obj in objects:
        for index, name in enumerate(obj.spec.hosts):
            if name.startswith("*"):
                wide.setdefault(world.host(obj, name), []).append((obj, index))
    for obj in objects if wide else ():
        for name in obj.spec.hosts:
            host = world.host(obj, name)
            for wildcard in wildcards_of(host):
                for other, index in wide.get(Host(wildcard), ()):
                    if other is not obj and _meet(obj, other):
                        message = f"is {wildcard}, and does not hold for {host}, which {obj.ref} names"
                        yield finding(
                            Code.OVERLAPPING_HOSTS, message, ref=other.ref, field=f"spec.hosts[{index}]"
                        )


def _meet(one: ConfigObject, other: ConfigObject) -> bool:
    """Whether some proxy uses both: they have a gateway in common (none is the mesh)."""
    mine, yours = ({*(o.spec.gateways or ("mesh",))} for o in (one, other))
    return bool(mine & yours) and seen_together(one, other)


def _services(world: World) -> Iterator[Finding]:
    entries = [
        (obj, index, Host(name.lower()))
        for obj in world.kind("ServiceEntry")
        for index, name in enumerate(obj.spec.hosts)
    ]
    wide = {host: (obj, index) for obj, index, host in reversed(entries) if host.startswith("*")}
    for obj, _, host in entries if wide else ():
        for wildcard in wildcards_of(host):
            found = wide.get(Host(wildcard))
            if found is not None and found[0] is not obj:
                message = f"is {wildcard}, and is not meant by {host}, which {obj.ref} defines"
                field = f"spec.hosts[{found[1]}]"
                yield finding(Code.OVERLAPPING_HOSTS, message, ref=found[0].ref, field=field)
