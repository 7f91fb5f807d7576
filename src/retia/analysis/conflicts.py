"""Objects that fight: over a host, over what is one rule, over one endpoint's address."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from retia.analysis.reach import covers, takes_everything
from retia.analysis.world import World, seen_together
from retia.config.codes import Code, finding
from retia.config.schema.http_match import HTTPMatchRequest
from retia.model.finding import Finding
from retia.model.ids import Host
from retia.model.objects import ConfigObject

_RIVALS = 20
_BLOCKS = 200
"""Objects and matches that are compared with each other; what lies beyond is let pass. Arbitrary."""


def check(world: World) -> Iterator[Finding]:
    yield from _virtual_services(world)
    yield from _destination_rules(world)
    yield from _services(world)
    yield from _addresses(world)


def _virtual_services(world: World) -> Iterator[Finding]:
    """Objects for one host are joined by age: of two rules for the same requests the older holds."""
    owners: dict[Host, list[ConfigObject]] = defaultdict(list)
    for obj in world.kind("VirtualService"):
        if not obj.spec.applies_to_mesh:
            continue
        for name in obj.spec.hosts:
            host = world.host(obj, name)
            older = [each for each in owners[host] if each != obj and seen_together(each, obj)]
            if older:
                yield from _hidden(host, older[:_RIVALS], obj)
            owners[host].append(obj)


def _hidden(host: Host, older: list[ConfigObject], obj: ConfigObject) -> Iterator[Finding]:
    taken = [(where, block) for each in older for where, block in _blocks(each)][:_BLOCKS]
    for index, rule in enumerate(obj.spec.http[:_BLOCKS]):
        blocks = rule.match or (HTTPMatchRequest(),)
        takers = [next((where for where, wide in taken if _hides(wide, block)), "") for block in blocks]
        if all(takers):
            message = f"is never reached for {host}: {takers[0]} is older and takes its requests"
            remedy = "make the matches differ, or write the rules for one host into one VirtualService"
            yield finding(
                Code.HOST_CONFLICT, message, ref=obj.ref, field=f"spec.http[{index}]", remedy=remedy
            )


def _blocks(obj: ConfigObject) -> Iterator[tuple[str, HTTPMatchRequest]]:
    for index, rule in enumerate(obj.spec.http):
        where = f"spec.http[{index}] of {obj.ref}"
        yield from ((where, block) for block in rule.match or (HTTPMatchRequest(),))


def _hides(wide: HTTPMatchRequest, narrow: HTTPMatchRequest) -> bool:
    """A match for everything goes behind all narrower ones, whatever its age."""
    return covers(wide, narrow) and (not takes_everything(wide) or takes_everything(narrow))


def _destination_rules(world: World) -> Iterator[Finding]:
    """Rules of one namespace for one host are merged: the oldest policy, the oldest subset of each name."""
    policies: dict[tuple[str, Host], ConfigObject] = {}
    subsets: dict[tuple[str, Host, str], ConfigObject] = {}
    for obj in world.kind("DestinationRule"):
        if obj.spec.workload_selector is not None:
            continue
        host = world.host(obj, obj.spec.host)
        if obj.spec.traffic_policy is not None:
            older = policies.setdefault((obj.ref.namespace, host), obj)
            if older is not obj:
                message = f"has no effect: {older.ref} is older and sets the policy of {host}"
                yield finding(
                    Code.DESTINATION_RULE_CONFLICT, message, ref=obj.ref, field="spec.trafficPolicy"
                )
        for index, subset in enumerate(obj.spec.subsets):
            older = subsets.setdefault((obj.ref.namespace, host, subset.name), obj)
            if older is not obj:
                message = f"{subset.name} has no effect: {older.ref} is older and defines it for {host}"
                field = f"spec.subsets[{index}]"
                yield finding(Code.DESTINATION_RULE_CONFLICT, message, ref=obj.ref, field=field)


def _services(world: World) -> Iterator[Finding]:
    """A host is defined by one object, the oldest."""
    owners: dict[Host, ConfigObject] = {}
    for obj in world.objects:
        if obj.ref.kind == "Service":
            named = [("metadata.name", world.host(obj, obj.ref.name))]
        elif obj.ref.kind == "ServiceEntry":
            named = [(f"spec.hosts[{i}]", Host(name)) for i, name in enumerate(obj.spec.hosts)]
        else:
            continue
        for field, host in named:
            older = owners.setdefault(host, obj)
            if older is not obj:
                message = f"is {host}, which {older.ref} defines and which is older; this one has no effect"
                yield finding(Code.DUPLICATE_SERVICE, message, ref=obj.ref, field=field)


def _addresses(world: World) -> Iterator[Finding]:
    """A client that dials an endpoint itself is known by ``address:port``, which must mean one service.

    On each host by itself: hosts give their instances the same loopback addresses.
    """
    owners: dict[tuple[str, str], set[Host]] = defaultdict(set)
    for host, endpoints in sorted((world.endpoints or {}).items()):
        for each in endpoints:
            where = (each.host or "") if each.address.startswith("127.") else ""
            owners[f"{each.address}:{each.app_port or each.port}", where].add(host)
    for (address, _), hosts in sorted(owners.items()):
        if len(hosts) > 1:
            first, *others = sorted(hosts)
            message = (
                f"{address} is an endpoint of {first} and {', '.join(others)}; {first} is taken to be meant"
            )
            yield finding(Code.AMBIGUOUS_ADDRESS, message)
