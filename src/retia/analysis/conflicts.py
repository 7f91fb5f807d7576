"""Objects that fight: over a host, over what is one rule, over one endpoint's address."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from retia.analysis.world import World, seen_together
from retia.config.codes import Code, finding
from retia.model.finding import Finding
from retia.model.ids import Host
from retia.model.objects import ConfigObject


def check(world: World) -> Iterator[Finding]:
    yield from _virtual_services(world)
    yield from _destination_rules(world)
    yield from _services(world)
    yield from _addresses(world)


def _virtual_services(world: World) -> Iterator[Finding]:
    """Sidecars take one object for a host, the oldest; Istio merges for gateways only."""
    owners: dict[Host, list[ConfigObject]] = defaultdict(list)
    for obj in world.kind("VirtualService"):
        if not obj.spec.applies_to_mesh:
            continue
        for index, name in enumerate(obj.spec.hosts):
            host = world.host(obj, name)
            rival = next((each for each in owners[host] if each != obj and seen_together(each, obj)), None)
            if rival is not None:
                message = (
                    f"is {host}, for which {rival.ref} is older and holds alone; these rules have no effect"
                )
                remedy = "write the rules for one host into one VirtualService"
                field = f"spec.hosts[{index}]"
                yield finding(Code.HOST_CONFLICT, message, ref=obj.ref, field=field, remedy=remedy)
            owners[host].append(obj)


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
