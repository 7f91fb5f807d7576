"""Which EnvoyFilter changes hold for a proxy.

As in Istio (reference, EnvoyFilter): those of the root namespace come first, then those of the proxy's own;
in a namespace by priority, then by age. What is read is the *approved* form of an object, the fact
``("patch", namespace, name)``: a change reaches proxies only after a real Envoy has accepted the result
(:mod:`retia.control.patches`); until then the last approved form stays in force.
"""

from __future__ import annotations

from dataclasses import dataclass

from retia.config.schema.envoy_filter import ApplyTo, ConfigPatch, Operation, PatchContext
from retia.model.ids import MESH_NAMESPACE
from retia.model.mesh import Labels, ProxyKind, labels_match, labels_of
from retia.model.objects import ConfigObject, ObjectRef
from retia.model.resource import Provenance
from retia.model.snapshot import View
from retia.policy.indexes import refs

Context = PatchContext


@dataclass(frozen=True, slots=True)
class Change:
    """One patch of one object."""

    ref: ObjectRef
    field: str
    patch: ConfigPatch

    @property
    def provenance(self) -> Provenance:
        return Provenance(self.ref, self.field)

    def is_for(self, context: Context) -> bool:
        """Whether it is for that place: a part of a sidecar, or a gateway."""
        match = self.patch.match
        wanted = match.context if match is not None else Context.ANY
        return wanted in (Context.ANY, context)


def changes(view: View, apply_to: ApplyTo) -> tuple[Change, ...]:
    """The changes of that kind for this proxy, in the order in which they are made."""
    namespace, labels = view.proxy("namespace"), view.proxy("labels")
    found = view.query(_of_root, ())
    if namespace != MESH_NAMESPACE:
        found += view.query(_of_namespace, namespace)
    return tuple(
        change
        for selector, change in found
        if change.patch.apply_to is apply_to and labels_match(selector, labels)
    )


def names_added(view: View, apply_to: ApplyTo, context: Context) -> tuple[Change, ...]:
    """The changes that add a whole listener or cluster. With no context asked for, listeners are added to
    outbound sides and gateways only (Istio's rule)."""
    return tuple(
        each
        for each in changes(view, apply_to)
        if each.patch.patch.operation is Operation.ADD and each.is_for(context)
    )


def context_of(view: View, *, inbound: bool) -> Context:
    if view.proxy("kind") is ProxyKind.GATEWAY:
        return Context.GATEWAY
    return Context.SIDECAR_INBOUND if inbound else Context.SIDECAR_OUTBOUND


_Selected = tuple[Labels, Change]


def _of_root(view: View, _key: tuple[()]) -> tuple[_Selected, ...]:
    return _of_namespace(view, MESH_NAMESPACE)


def _of_namespace(view: View, namespace: str) -> tuple[_Selected, ...]:
    found = [view.fact("patch", ref.namespace, ref.name) for ref in refs(view, "ef-namespace", namespace)]
    approved: list[ConfigObject] = [obj for obj in found if obj is not None]
    approved.sort(key=lambda obj: obj.spec.priority)  # the index has the oldest first
    return tuple(
        (_selector(obj), Change(obj.ref, f"spec.configPatches[{index}]", patch))
        for obj in approved
        for index, patch in enumerate(obj.spec.config_patches)
    )


def _selector(obj: ConfigObject) -> Labels:
    selector = obj.spec.workload_selector
    return labels_of(selector.labels) if selector is not None else ()
