"""What a policy of Retia's own is for: objects by reference, or workloads by label.

Gateway API's way (``targetRefs``, GEP-713): a reference is to an object of the policy's own namespace, and
``sectionName`` narrows it to a part. With neither reference nor selector, a policy is for all workloads of
its namespace, and in the root namespace for those of the mesh, as Istio's policies are.
"""

from __future__ import annotations

from collections.abc import Iterator

from retia.config.codes import Code
from retia.config.schema.base import Model, Path, Problem
from retia.config.schema.selector import WorkloadSelector
from retia.config.schema.types import DnsLabel, Text

GATEWAY_API = "gateway.networking.k8s.io"
ISTIO = "networking.istio.io"
GROUPS = {
    "Service": ("",),
    "Gateway": (GATEWAY_API, ISTIO),
    "HTTPRoute": (GATEWAY_API,),
    "GRPCRoute": (GATEWAY_API,),
    "VirtualService": (ISTIO,),
}
"""The kinds that may be targets, with their groups; the first is meant where none is written."""
ROUTES = frozenset({"HTTPRoute", "GRPCRoute", "VirtualService"})


class TargetRef(Model):
    """An object of the policy's own namespace."""

    group: Text | None = None
    """Absent: the group that has the kind (of ``Gateway``: Gateway API's)."""
    kind: Text
    name: DnsLabel
    section_name: Text = ""
    """A part of it: a Service's port, a route's rule by its name. Empty: all of it."""

    @property
    def api_group(self) -> str:
        """The group, whether it was written or not."""
        return self.group if self.group is not None else GROUPS[self.kind][0]

    @property
    def is_route(self) -> bool:
        return self.kind in ROUTES

    def problems(self) -> Iterator[Problem]:
        groups = GROUPS.get(self.kind)
        if groups is None:
            known = ", ".join(GROUPS)
            yield Problem(("kind",), f"is {self.kind}; it must be one of {known}", Code.BAD_VALUE)
        elif self.group is not None and self.group not in groups:
            shown = " or ".join(each or '""' for each in groups)
            yield Problem(("group",), f"is {self.group!r}; for {self.kind} it is {shown}", Code.BAD_VALUE)
        if self.kind == "Gateway" and self.section_name:
            message = "is for a Service or a route: a policy is for all servers of a Gateway"
            yield Problem(("sectionName",), message, Code.BAD_VALUE)


class PolicyTargets(Model):
    """The fields that all policies begin with."""

    target_refs: tuple[TargetRef, ...] = ()
    """Absent: ``selector`` says it."""
    selector: WorkloadSelector | None = None
    """Workloads of the namespace with all these labels. Absent, and no ``targetRefs``: all of them."""

    def problems(self) -> Iterator[Problem]:
        if self.target_refs and self.selector is not None:
            yield Problem(("selector",), "must not stand beside targetRefs: they exclude one another")
        seen: set[tuple[str, str, str, str]] = set()
        for index, ref in enumerate(self.target_refs):
            key = (ref.api_group, ref.kind, ref.name, ref.section_name)
            if key in seen:
                yield Problem(("targetRefs", index), "stands here twice")
            seen.add(key)

    def no_routes(self) -> Iterator[Problem]:
        """The rule of policies that hold for whole services and gateways only."""
        for index, ref in enumerate(self.target_refs):
            if ref.is_route:
                path: Path = ("targetRefs", index, "kind")
                message = f"is {ref.kind}; this policy is for a Service or a Gateway, not for one route"
                yield Problem(path, message, Code.BAD_VALUE)
