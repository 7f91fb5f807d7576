"""Routes: what each of their parents makes of them."""

from __future__ import annotations

from typing import Any

from retia.analysis.status.conditions import Condition, Serving, bad, data_of, good
from retia.model.objects import ConfigObject
from retia.model.snapshot import View
from retia.policy.gateway_api import http_rules, mesh, stream_rules
from retia.policy.gateway_api.attachment import (
    attachments,
    gateway_of_parent,
    is_gateway_parent,
    judge,
    owner_key,
)
from retia.policy.gateway_api.http_rules import Trouble
from retia.policy.gateway_api.listeners import Reason, listeners
from retia.policy.gateway_api.names import CONTROLLER, GATEWAY, MESH_CONTROLLER, TCP_ROUTE, TLS_ROUTE, key_of


def of_route(view: View, obj: ConfigObject, generation: int, _serving: Serving) -> dict[str, Any]:
    """Parents that aren't ours have no entry."""
    found = troubles(view, obj)
    shared = _after_acceptance(obj, found)
    parents = []
    for index, parent in enumerate(obj.spec.parent_refs):
        verdict = _verdict(view, obj, index)
        if verdict is None:
            continue
        controller, reason = verdict
        accepted = bad("Accepted", reason) if reason is not None else good("Accepted")
        parents.append(
            {
                "parentRef": parent.model_dump(mode="json", by_alias=True, exclude_none=True),
                "controllerName": controller,
                "conditions": data_of([_unsupported(found) or accepted, *shared], generation),
            }
        )
    return {"parents": parents}


def troubles(view: View, obj: ConfigObject) -> tuple[Trouble, ...]:
    """What of a route can't be done as written."""
    if obj.ref.kind in (TCP_ROUTE, TLS_ROUTE):
        return stream_rules.troubles(view, obj)
    return http_rules.troubles(view, obj)


def refusal(view: View, obj: ConfigObject, index: int) -> Reason | None:
    """Why a parent doesn't take the route; ``None``: it does, or it is none of ours."""
    verdict = _verdict(view, obj, index)
    return verdict[1] if verdict is not None else None


def _verdict(view: View, obj: ConfigObject, index: int) -> tuple[str, Reason | None] | None:
    """Whose parent it is, and why it doesn't take the route; ``None``: not ours."""
    parent = obj.spec.parent_refs[index]
    if mesh.is_mesh_parent(parent):
        return MESH_CONTROLLER, mesh.judge(view, obj, index)
    if not is_gateway_parent(parent):
        return None
    gateway = gateway_of_parent(view, obj.ref, parent)
    if gateway is None:
        return None
    key = (gateway.namespace, gateway.name)
    meant = owner_key(obj.ref, parent)
    judged = judge(view, obj, index, [x for x in view.query(listeners, key) if key_of(x.owner) == meant])
    if isinstance(judged, Reason):
        return CONTROLLER, judged
    found = view.query(attachments, key)
    for refused in found.refused:
        if refused.route == obj.ref and refused.parent == index:
            return CONTROLLER, refused.reason
    return CONTROLLER, None


def _unsupported(found: tuple[Trouble, ...]) -> Condition | None:
    """A value that this mesh can't do, where no rule is left."""
    wrong = next((each for each in found if each.reason.word == "UnsupportedValue"), None)
    if wrong is None:
        return None
    return bad("Accepted", Reason("UnsupportedValue", f"{wrong.field}: {wrong.reason.message}"))


_REFERENCES = ("RefNotPermitted", "InvalidKind", "BackendNotFound", "UnsupportedProtocol")


def _after_acceptance(obj: ConfigObject, found: tuple[Trouble, ...]) -> list[Condition]:
    wrong = next((each for each in found if each.reason.word in _REFERENCES), None)
    conditions = [good("ResolvedRefs")]
    if wrong is not None:
        conditions = [
            bad("ResolvedRefs", Reason(wrong.reason.word, f"{wrong.field}: {wrong.reason.message}"))
        ]
    dropped = {each.field.partition("]")[0] for each in found if each.dropped}
    if dropped and len(dropped) < len(obj.spec.rules):
        fields = ", ".join(f"{each}]" for each in sorted(dropped))
        message = f"Dropped Rule(s) {fields}: requests that they match are answered with an error"
        conditions.append(Condition("PartiallyInvalid", True, "UnsupportedValue", message))
    return conditions


def has_parent(view: View, obj: ConfigObject, index: int) -> bool:
    """Whether a parent is there and ours. Gateways of other controllers are theirs to judge."""
    parent = obj.spec.parent_refs[index]
    if not is_gateway_parent(parent):
        return True
    if gateway_of_parent(view, obj.ref, parent) is not None:
        return True
    namespace = parent.namespace or obj.ref.namespace
    kind = GATEWAY if parent.kind == "Gateway" else parent.kind
    return view.fact("config", kind, namespace, parent.name) is not None
