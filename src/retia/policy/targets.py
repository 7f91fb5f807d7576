"""Where Retia's own policies are for, as keys of their index.

A policy makes one entry for each of its targets; the index is the policy's own (``rate-limits``):

=================================  =================================================================
key                                for
=================================  =================================================================
``namespace/<namespace>``          its workloads (perhaps with a selector); in the root namespace: all
``Service/<namespace>/<name>``     the workloads behind it
``Gateway…/<namespace>/<name>``    the proxies of it
``HTTPRoute/<namespace>/<name>``   requests that its rules route, and so for the other kinds of routes
=================================  =================================================================
"""

from __future__ import annotations

from collections.abc import Iterator

from retia.config.schema.policy_target import GATEWAY_API, TargetRef
from retia.model.objects import ConfigObject

API_GATEWAY = f"Gateway.{GATEWAY_API}"
"""Gateway API's Gateway inside the mesh; Istio's is just ``Gateway``."""


def places(obj: ConfigObject) -> Iterator[str]:
    """The keys of the object's index entries."""
    namespace = obj.ref.namespace
    if not obj.spec.target_refs:
        yield f"namespace/{namespace}"
    for ref in obj.spec.target_refs:
        yield f"{kind_of(ref)}/{namespace}/{ref.name}"


def kind_of(ref: TargetRef) -> str:
    """What the target's kind is called inside the mesh."""
    if ref.kind == "Gateway" and ref.api_group == GATEWAY_API:
        return API_GATEWAY
    return ref.kind


def has_routes(obj: ConfigObject) -> bool:
    """Whether any target is a route, so that callers' proxies are concerned."""
    return any(ref.is_route for ref in obj.spec.target_refs)
