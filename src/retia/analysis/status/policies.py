"""BackendTLSPolicy: its ancestors. Gateways and sidecars use it alike, so each target stands for them."""

from __future__ import annotations

from typing import Any

from retia.analysis.status.conditions import Condition, Serving, bad, data_of, good
from retia.model.ids import service_host
from retia.model.objects import ConfigObject
from retia.model.snapshot import View
from retia.policy.gateway_api import backend_tls
from retia.policy.gateway_api.listeners import Reason
from retia.policy.gateway_api.names import CONTROLLER
from retia.policy.indexes import objects
from retia.policy.registry import mesh, service

_CA_WORDS = {"InvalidCACertificateKind": "InvalidKind"}


def of_backend_tls(view: View, obj: ConfigObject, generation: int, _serving: Serving) -> dict[str, Any]:
    texts, wrong = backend_tls.authorities(view, obj)
    resolved = good("ResolvedRefs")
    if wrong:
        word = _CA_WORDS.get(wrong[0].word, wrong[0].word)
        resolved = bad("ResolvedRefs", Reason(word, wrong[0].message))
    usable = bool(texts) or obj.spec.validation.well_known_ca_certificates == "System"
    ancestors = []
    for index in range(len(obj.spec.target_refs)):
        reason = refusal(view, obj, index, usable=usable)
        accepted = bad("Accepted", reason) if reason is not None else good("Accepted")
        ref = obj.spec.target_refs[index]
        ancestor = {"group": ref.group, "kind": ref.kind, "namespace": obj.ref.namespace, "name": ref.name}
        if ref.section_name:
            ancestor["sectionName"] = ref.section_name
        conditions: list[Condition] = [accepted, resolved]
        ancestors.append(
            {
                "ancestorRef": ancestor,
                "controllerName": CONTROLLER,
                "conditions": data_of(conditions, generation),
            }
        )
    return {"ancestors": ancestors}


def refusal(view: View, obj: ConfigObject, index: int, *, usable: bool) -> Reason | None:
    """Why the policy doesn't hold for one of its targets."""
    ref = obj.spec.target_refs[index]
    if ref.kind not in backend_tls.TARGETS:
        return Reason("TargetNotFound", f"{ref.kind} {ref.name} is no Service")
    if ref.kind == "ServiceEntry":
        return None
    known = service(view, service_host(ref.name, obj.ref.namespace, mesh(view).dns_suffix))
    if known is None:
        return Reason("TargetNotFound", f"Service {obj.ref.namespace}/{ref.name} doesn't exist")
    if ref.section_name and all(each.name != ref.section_name for each in known.ports):
        return Reason("TargetNotFound", f"Service {ref.name} has no port named {ref.section_name}")
    if not usable:
        return Reason("NoValidCACertificate", "no authority can be used: no connection is trusted")
    rivals = objects(view, "backend-tls", f"{obj.ref.namespace}/{ref.name}")
    chosen = backend_tls.choose(rivals, ref.name, ref.section_name or "")
    if chosen is not None and chosen.ref != obj.ref:
        return Reason("Conflicted", f"{chosen.ref} is older and holds for the same target")
    return None
