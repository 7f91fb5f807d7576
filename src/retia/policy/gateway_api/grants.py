"""ReferenceGrant: whether an object may refer into another namespace."""

from __future__ import annotations

from retia.model.objects import ObjectRef
from retia.model.snapshot import View
from retia.policy.gateway_api.names import GROUP, group_of, short_kind
from retia.policy.indexes import objects


def is_granted(view: View, origin: ObjectRef, to_group: str, to_kind: str, namespace: str, name: str) -> bool:
    """Whether ``origin`` may refer to that object: in its own namespace always, in others by a grant."""
    if namespace == origin.namespace:
        return True
    kind = short_kind(origin.kind)
    group = group_of(kind) if kind == "XListenerSet" else GROUP
    for grant in objects(view, "grants", namespace):
        allowed = any(
            each.group == group and each.kind == kind and each.namespace == origin.namespace
            for each in grant.spec.from_
        )
        if allowed and any(
            each.group == to_group and each.kind == to_kind and each.name in (None, name)
            for each in grant.spec.to
        ):
            return True
    return False
