"""Which VirtualService holds for a host, as one client sees it.

The most specific host wins (exact, then the longest wildcard); among several objects for it, the oldest that
the client sees and that is bound to the mesh. Sidecars don't merge objects for one host (Istio, "Operations
best practices": merging is for gateways); the others have no effect, which is a finding.
"""

from __future__ import annotations

from collections.abc import Iterable

from retia.config.codes import Code, finding
from retia.model.finding import Finding
from retia.model.ids import wildcards_of
from retia.model.objects import ConfigObject, ObjectRef
from retia.model.snapshot import View
from retia.policy.visibility import visible

MESH = "mesh"
"""The reserved name of the gateway that all sidecars are."""


def virtual_service(view: View, host: str) -> tuple[ConfigObject, tuple[Finding, ...]] | None:
    """The object that holds for a host, with findings about those that it shadows."""
    exact = view.index("vs-host", host)
    if exact:
        found = _first(view, exact, host)
        if found is not None:
            return found
    for keys in view.query(covering, host.partition(".")[2]):
        found = _first(view, keys, host)
        if found is not None:
            return found
    return None


def covering(view: View, parent: str) -> tuple[tuple[ObjectRef, ...], ...]:
    """The keys of objects for wildcards that cover every host in the domain ``parent``, narrowest first."""
    levels = (view.index("vs-host", wildcard) for wildcard in wildcards_of(f"x.{parent}" if parent else "x"))
    return tuple(keys for keys in levels if keys)


def _first(
    view: View, keys: Iterable[ObjectRef], host: str
) -> tuple[ConfigObject, tuple[Finding, ...]] | None:
    client = view.proxy("namespace")
    seen: list[ConfigObject] = []
    for key in keys:
        obj: ConfigObject | None = view.fact("config", *key.key)
        if obj is None or (obj.spec.gateways and MESH not in obj.spec.gateways):
            continue
        if visible(obj.spec.export_to, obj.ref.namespace, client):
            seen.append(obj)
    if not seen:
        return None
    winner = seen[0]
    shadowed = tuple(
        finding(
            Code.HOST_CONFLICT,
            f"{host} is also named by {winner.ref}, which is older and holds alone",
            ref=obj.ref,
            field="spec.hosts",
            remedy="write the rules for one host into one VirtualService",
        )
        for obj in seen[1:]
    )
    return winner, shadowed
