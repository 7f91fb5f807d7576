"""What the checks look things up in: objects by kind, services by host, rules by host."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from retia.config.schema.destination_rule import DestinationRule, Subset
from retia.model.ids import DNS_SUFFIX, Host, qualify, wildcards_of
from retia.model.mesh import Endpoint, EndpointSet, Service, Workload
from retia.model.objects import ConfigObject
from retia.policy.visibility import visible


@dataclass(slots=True)
class World:
    """All objects, and the services; ``endpoints`` and ``workloads`` are ``None`` where nobody knows them (a
    directory checked with no mesh running): checks that need them are left out."""

    objects: tuple[ConfigObject, ...]
    services: dict[Host, Service]
    endpoints: dict[Host, tuple[Endpoint, ...]] | None
    workloads: tuple[Workload, ...] | None
    suffix: str
    complete: bool = True
    """Whether ``services`` are all there are; false for files that say nothing of the mesh's own services."""
    _rules: dict[Host, list[ConfigObject]] = field(default_factory=lambda: defaultdict(list))
    _by_label: dict[str, list[Host]] = field(default_factory=lambda: defaultdict(list))
    _has_wild_services: bool = False
    _has_wild_rules: bool = False

    @classmethod
    def of(
        cls,
        objects: Iterable[ConfigObject],
        services: Iterable[Service],
        endpoints: Iterable[EndpointSet] | None = None,
        workloads: Iterable[Workload] | None = None,
        suffix: str = DNS_SUFFIX,
        *,
        complete: bool = True,
    ) -> World:
        """Sorted, so that the order of arrival does not show in the findings."""
        world = cls(
            tuple(sorted(objects, key=lambda obj: (obj.order, obj.ref.kind))),
            {service.host: service for service in services},
            None if endpoints is None else {each.host: each.endpoints for each in endpoints},
            None if workloads is None else tuple(sorted(workloads, key=lambda each: each.id)),
            suffix,
            complete,
        )
        for obj in world.kind("DestinationRule"):
            world._rules[world.host(obj, obj.spec.host)].append(obj)
        world._has_wild_services = any(host.startswith("*") for host in world.services)
        world._has_wild_rules = any(host.startswith("*") for host in world._rules)
        return world

    def kind(self, name: str) -> Iterator[ConfigObject]:
        """The objects of a kind, the oldest first."""
        return (obj for obj in self.objects if obj.ref.kind == name)

    def host(self, obj: ConfigObject, name: str) -> Host:
        """A host as an object means it."""
        return qualify(name, obj.ref.namespace, self.suffix)

    def service(self, host: str) -> Service | None:
        """The service of a host, or the one whose wildcard covers it."""
        found = self.services.get(Host(host))
        if found is not None or not self._has_wild_services:
            return found
        covering = (self.services.get(Host(wildcard)) for wildcard in wildcards_of(host))
        return next((each for each in covering if each is not None), None)

    def may_exist(self, host: str) -> bool:
        """Whether a host without a service may have one that nobody has told of."""
        return not self.complete and host.endswith(f".{self.suffix}")

    def namesakes(self, name: str) -> tuple[Host, ...]:
        """The services whose name begins with the same label, whatever their namespace."""
        if not self._by_label:
            for host in sorted(self.services):
                self._by_label[host.partition(".")[0]].append(host)
        return tuple(self._by_label.get(name.partition(".")[0], ()))

    def destination_rules(self, host: str) -> Iterator[ConfigObject]:
        """The DestinationRules whose host is or covers ``host``."""
        yield from self._rules.get(Host(host), ())
        for wildcard in wildcards_of(host) if self._has_wild_rules else ():
            yield from self._rules.get(Host(wildcard), ())

    def subset(self, obj: ConfigObject, host: str, name: str) -> Subset | None:
        """The subset of that name in a DestinationRule that callers in the object's namespace may see."""
        for rule in self.destination_rules(host):
            spec: DestinationRule = rule.spec
            found = spec.subset(name)
            if found and visible(spec.export_to, rule.ref.namespace, obj.ref.namespace):
                return found
        return None


def seen_together(one: ConfigObject, other: ConfigObject) -> bool:
    """Whether some caller sees both objects (``exportTo``)."""
    spaces = {one.ref.namespace, other.ref.namespace, *one.spec.export_to, *other.spec.export_to}
    spaces = {space for space in spaces if space not in (".", "~")} - {"*"} | {"some.other"}
    return any(
        visible(one.spec.export_to, one.ref.namespace, space)
        and visible(other.spec.export_to, other.ref.namespace, space)
        for space in spaces
    )
