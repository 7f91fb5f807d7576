"""Precedence of PeerAuthentication: workload and port, workload, namespace, mesh.

As in Istio (reference, PeerAuthentication): among several policies of one scope the oldest counts; a policy
with a selector in the root namespace selects nothing; ``UNSET`` takes the mode of the next wider scope; with
no policy at all a port is PERMISSIVE. A policy that can't be read refuses what it selects.
"""

from __future__ import annotations

from typing import Any

from retia.model.ids import MESH_NAMESPACE
from retia.model.mesh import Labels, labels_match, labels_of
from retia.model.objects import ConfigObject, ObjectRef
from retia.model.resource import Provenance
from retia.model.snapshot import View
from retia.policy.authn.forms import Inbound, Policy, PortMode
from retia.policy.indexes import refs, uses

_MODES = {"STRICT": Inbound.STRICT, "PERMISSIVE": Inbound.PERMISSIVE, "DISABLE": Inbound.DISABLE}


def wide_policy(view: View, namespace: str) -> Policy | None:
    """What holds for all workloads of a namespace; in the root one, for the mesh."""
    return next((_read(view, ref) for ref in refs(view, "pa-namespace", namespace)), None)


def workload_policy(view: View, key: tuple[str, Labels]) -> Policy | None:
    """The policy that selects a workload ``(namespace, labels)``: the oldest. Found by the labels, so that a
    namespace with many policies costs no more than one with few."""
    namespace, labels = key
    if namespace == MESH_NAMESPACE or not uses(view, f"selected-authentication in {namespace}"):
        return None
    found = [ref for key, value in labels for ref in refs(view, "pa-label", f"{namespace}/{key}={value}")]
    objects = [obj for ref in found if (obj := view.fact("config", *ref.key)) is not None]
    for obj in sorted(objects, key=lambda o: o.order):
        policy = _read(view, obj.ref)
        if labels_match(policy.selector, labels):
            return policy
    return None


def namespace_has_policies(view: View, namespace: str) -> bool:
    """Whether any policy may hold for workloads of that namespace."""
    return (
        view.query(wide_policy, namespace) is not None
        or view.query(wide_policy, MESH_NAMESPACE) is not None
        or uses(view, f"selected-authentication in {namespace}")
    )


def port_mode(view: View, key: tuple[str, Labels, int]) -> PortMode:
    """The mode of ``(workload's namespace, its labels, its port)``."""
    namespace, labels, port = key
    outcome = _inherit(PortMode(), view.query(wide_policy, MESH_NAMESPACE))
    if namespace != MESH_NAMESPACE:
        outcome = _inherit(outcome, view.query(wide_policy, namespace))
    workload = view.query(workload_policy, (namespace, labels))
    if workload is None:
        return outcome
    outcome = _inherit(outcome, workload)
    at_port = dict(workload.ports).get(port)
    if at_port is None:
        return outcome
    return PortMode(at_port, (_provenance(workload, f"spec.portLevelMtls[{port}]"),))


def modes(
    view: View, namespace: str, labels: Labels, ports: tuple[int, ...]
) -> tuple[tuple[int, PortMode], ...]:
    """The modes of several ports of one workload."""
    return tuple((port, view.query(port_mode, (namespace, labels, port))) for port in ports)


def _inherit(outer: PortMode, policy: Policy | None) -> PortMode:
    if policy is None:
        return outer
    if policy.mode is None:
        return outer
    return PortMode(policy.mode, (_provenance(policy, "spec.mtls.mode"),))


def _provenance(policy: Policy, field: str) -> Provenance:
    return Provenance(policy.ref, field)


def _read(view: View, ref: ObjectRef) -> Policy:
    """One object; what can't be read refuses everything in its reach."""
    obj: ConfigObject | None = view.fact("config", *ref.key)
    unreadable = Policy(ref, mode=Inbound.REFUSE)
    if obj is None or obj.spec is None:
        return unreadable
    try:
        return _policy(obj)
    except (AttributeError, KeyError, TypeError, ValueError):
        return unreadable


def _policy(obj: ConfigObject) -> Policy:
    spec = obj.spec
    selector = spec.selector.match_labels if spec.selector is not None else ()
    ports = dict(spec.port_level_mtls or {})
    return Policy(
        ref=obj.ref,
        selector=labels_of(selector or ()),
        mode=_mode(spec.mtls),
        ports=tuple(sorted((int(port), _mode(value)) for port, value in ports.items())),
    )


def _mode(mtls: Any) -> Inbound | None:
    """``None`` for absent and ``UNSET``; a mode that isn't known raises ``KeyError``."""
    if mtls is None or mtls.mode is None or str(mtls.mode) == "UNSET":
        return None
    return _MODES[str(mtls.mode)]
