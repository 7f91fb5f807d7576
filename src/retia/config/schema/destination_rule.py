"""``DestinationRule``: subsets of a service and how they are spoken to. networking.istio.io."""

from __future__ import annotations

from collections.abc import Iterator

from retia.config.schema.base import Model, Problem
from retia.config.schema.selector import WorkloadSelector
from retia.config.schema.traffic_policy import TrafficPolicy
from retia.config.schema.types import (
    DnsLabel,
    LabelMap,
    Visibility,
    WildcardHost,
    duplicates,
    export_problems,
)


class Subset(Model):
    """Some of a service's endpoints, by label."""

    name: DnsLabel
    labels: LabelMap = ()
    """None: all endpoints."""
    traffic_policy: TrafficPolicy | None = None
    """What it has takes the place of the rule's own setting."""


class DestinationRule(Model):
    """Settings for the callers of one host."""

    host: WildcardHost
    """A name with no dot is a service of the rule's own namespace."""
    traffic_policy: TrafficPolicy | None = None
    subsets: tuple[Subset, ...] = ()
    export_to: tuple[Visibility, ...] = ()
    """Namespaces whose callers it applies to. None: all."""
    workload_selector: WorkloadSelector | None = None
    """The callers it applies to. Absent: all."""

    def problems(self) -> Iterator[Problem]:
        for index, name in duplicates(subset.name for subset in self.subsets):
            yield Problem(("subsets", index, "name"), f"is {name}, which is there already")
        yield from export_problems(self.export_to)
        if self.workload_selector and self.export_to not in ((), (".",)):
            yield Problem(("exportTo",), 'must be "." or absent beside workloadSelector')

    def subset(self, name: str) -> Subset | None:
        """The subset of that name."""
        return next((each for each in self.subsets if each.name == name), None)
