"""Precedence of DestinationRules (Istio reference, DestinationRule and "Traffic management best practices").

*Which* rules: those for the host in the client's namespace, else in the service's, else in the root one; an
exact host before a wildcard; rules of one namespace for one host are merged: subsets of all, the policy of
the oldest that has one. *What* holds: a subset's settings over the rule's, group by group; a port's settings
replace all of that level's (what they leave out is the default, not the level's).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from retia.config.codes import Code, finding
from retia.model.finding import Finding
from retia.model.ids import MESH_NAMESPACE, wildcards_of
from retia.model.mesh import Labels, ProxyKind, labels_match, labels_of
from retia.model.objects import ConfigObject, ObjectRef
from retia.model.resource import Provenance
from retia.model.snapshot import View
from retia.policy.budgets import budget_of
from retia.policy.lanes import choose as lanes
from retia.policy.registry import mesh, service
from retia.policy.rollout import choose as rollout
from retia.policy.traffic.forms import (
    Algorithm,
    Balancing,
    HashKind,
    HashOn,
    RetryBudget,
    Tls,
    TlsMode,
    TrafficPolicy,
)
from retia.policy.traffic.read import Groups, read_groups
from retia.policy.visibility import visible

_DEFAULT = TrafficPolicy()
NOBODY = "spiffe://invalid/nobody"
"""The name of no certificate: where no authority can be used, nobody is trusted."""
_BY_CLIENT = Balancing(Algorithm.RING_HASH, HashOn(HashKind.SOURCE_IP))


def traffic_policy(view: View, key: tuple[str, int, str]) -> TrafficPolicy | None:
    """What holds for ``(host, port, subset)``; ``None``: no rule defines that subset."""
    host, port, subset = key
    if "~" in subset:
        return _implicit(view, host, port, subset)
    rules = _rules(view, host)
    if not rules:
        whole = _sticky(view, host, _DEFAULT)
        return None if subset else _with_tls(view, host, port, _with_budget(view, host, whole))
    found = _find_subset(rules, subset) if subset else None
    if subset and found is None:
        return None
    base = next((rule for rule in rules if rule.spec.traffic_policy is not None), None)
    groups = Groups()
    if base is not None:
        groups = _at_port(groups, base, base.spec.traffic_policy, port, "spec.trafficPolicy")
    labels: Labels = ()
    if found is not None:
        rule, index = found
        chosen = rule.spec.subsets[index]
        labels = labels_of(chosen.labels or ())
        where = f"spec.subsets[{index}]"
        groups = groups.noting(Provenance(rule.ref, where))
        if chosen.traffic_policy is not None:
            groups = _at_port(groups, rule, chosen.traffic_policy, port, f"{where}.trafficPolicy")
    policy = groups.finish(labels)
    policy = policy if groups.balancing else _sticky(view, host, policy)
    return _with_tls(view, host, port, _with_budget(view, host, policy))


def _sticky(view: View, host: str, policy: TrafficPolicy) -> TrafficPolicy:
    """The balancing of a Service that wants a client to stay at one endpoint, where no rule has any."""
    known = service(view, host)
    return replace(policy, balancing=_BY_CLIENT) if known is not None and known.sticky else policy


def _with_tls(view: View, host: str, port: int, policy: TrafficPolicy) -> TrafficPolicy:
    """The TLS of a BackendTLSPolicy, where the DestinationRule says nothing about TLS."""
    # Imported here: it reads into the forms of this package.
    from retia.policy.gateway_api.backend_tls import backend_tls

    wanted = backend_tls(view, (host, port)) if policy.tls is None else None
    if wanted is None:
        return policy
    names = (*wanted.dns_names, *wanted.uris)
    if not wanted.authorities and not wanted.system:
        names = (NOBODY,)
    tls = Tls(TlsMode.SIMPLE, sni=wanted.sni, ca_pem=wanted.authorities, names=names)
    return replace(policy, tls=tls, provenance=(*policy.provenance, *wanted.provenance))


def _with_budget(view: View, host: str, policy: TrafficPolicy) -> TrafficPolicy:
    """The budget of retries of an OverloadPolicy, where the DestinationRule has none."""
    budget = budget_of(view, host) if policy.retry_budget is None else None
    if budget is None:
        return policy
    rule = RetryBudget(budget.percent, budget.least)
    return replace(policy, retry_budget=rule, provenance=(*policy.provenance, *budget.provenance))


def _implicit(view: View, host: str, port: int, subset: str) -> TrafficPolicy | None:
    """A version of a service that a rollout or a lane chose: like the subset that it stands for, or like the
    service as a whole with other labels."""
    version = rollout.chosen(view, host, subset)
    if version is not None and version[0]:
        return view.query(traffic_policy, (host, port, version[0]))
    labels = version[1] if version is not None else lanes.chosen(view, host, port, subset)
    whole = view.query(traffic_policy, (host, port, ""))
    return None if labels is None or whole is None else replace(whole, labels=labels)


def missing_subset(ref: ObjectRef, field: str, host: str, subset: str) -> Finding:
    """The finding for a rule that sends requests to a subset nobody defines."""
    return finding(
        Code.UNKNOWN_SUBSET,
        f"subset {subset} of {host} is defined by no DestinationRule; requests sent to it get 503",
        ref=ref,
        field=field,
        remedy=f"add subset {subset} to a DestinationRule for {host}",
    )


def _at_port(groups: Groups, rule: ConfigObject, policy: Any, port: int, where: str) -> Groups:
    selected = rule.spec.workload_selector is not None
    groups = groups.over(read_groups(policy, rule.ref, where, selected=selected))
    for index, at_port in enumerate(policy.port_level_settings):
        if at_port.port is not None and at_port.port.number == port:
            at = f"{where}.portLevelSettings[{index}]"
            return groups.replaced_by(read_groups(at_port, rule.ref, at, selected=selected))
    return groups


def missing_credential(view: View, policy: TrafficPolicy) -> str:
    """Why this proxy can't use the Secret that a rule's TLS names, as one sentence; empty: it can, or none is
    named.

    As in Istio it is one of the proxy's own namespace, and sidecars get it only by a rule with a
    ``workloadSelector``.
    """
    credential = policy.tls.credential if policy.tls is not None else ""
    if not credential or policy.tls is None:
        return ""
    if view.proxy("kind") is ProxyKind.SIDECAR and not policy.tls.selected:
        return f"Secret {credential} is given to sidecars only by a rule with a workloadSelector"
    namespace = view.proxy("namespace")
    if view.fact("config", "Secret", namespace, credential) is None:
        return f"there is no Secret {credential} in namespace {namespace}"
    return ""


def _find_subset(rules: Iterable[ConfigObject], name: str) -> tuple[ConfigObject, int] | None:
    for rule in rules:
        for index, candidate in enumerate(rule.spec.subsets):
            if candidate.name == name:
                return rule, index
    return None


def _rules(view: View, host: str) -> tuple[ConfigObject, ...]:
    """The rules for a host that this client sees: all of one namespace and one host name."""
    exact = view.index("dr-host", host)
    wide = view.query(covering_rules, host.partition(".")[2]) if not host.startswith("*") else ()
    if not exact and not wide:
        return ()
    client = view.proxy("namespace")
    known = service(view, host)
    owner = known.namespace if known is not None else client
    levels = ((exact,) if exact else ()) + wide
    for namespace in dict.fromkeys((client, owner, MESH_NAMESPACE)):
        for keys in levels:
            found = _seen(view, [k for k in keys if k.namespace == namespace], client)
            if found:
                return found
    return ()


def covering_rules(view: View, parent: str) -> tuple[tuple[ObjectRef, ...], ...]:
    """The keys of rules for wildcards that cover every host in the domain ``parent``, the narrowest first."""
    levels = (view.index("dr-host", wildcard) for wildcard in wildcards_of(f"x.{parent}" if parent else "x"))
    return tuple(keys for keys in levels if keys)


def _seen(view: View, keys: Iterable[ObjectRef], client: str) -> tuple[ConfigObject, ...]:
    objects = [obj for key in keys if (obj := view.fact("config", *key.key)) is not None]
    default = mesh(view).destination_rule_export
    shown = [obj for obj in objects if visible(obj.spec.export_to or default, obj.ref.namespace, client)]
    chosen = [obj for obj in shown if obj.spec.workload_selector is not None]
    if chosen:
        mine = [
            obj
            for obj in chosen
            if obj.ref.namespace == client
            and labels_match(labels_of(obj.spec.workload_selector.match_labels or ()), view.proxy("labels"))
        ]
        if mine:
            return tuple(mine)
    return tuple(obj for obj in shown if obj.spec.workload_selector is None)
