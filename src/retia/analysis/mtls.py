"""PeerAuthentication against workloads, against its likes and against what callers are told to speak."""

from __future__ import annotations

from collections.abc import Iterator

from retia.analysis.world import World
from retia.config.codes import Code, finding
from retia.config.schema.peer_authentication import PeerAuthentication
from retia.config.schema.traffic_policy import ClientTLSSettings, TLSMode
from retia.model.finding import Finding
from retia.model.ids import MESH_NAMESPACE
from retia.model.mesh import Labels, Mode, labels_match
from retia.model.objects import ConfigObject


def check(world: World) -> Iterator[Finding]:
    yield from _selectors(world)
    yield from _rivals(world)
    yield from _callers(world)


def _selectors(world: World) -> Iterator[Finding]:
    for obj in world.kind("PeerAuthentication"):
        labels = obj.spec.labels
        if not labels:
            continue
        wanted = ", ".join(f"{key}={value}" for key, value in labels)
        if obj.ref.namespace == MESH_NAMESPACE:
            message = f"selects {wanted}, but a policy of {MESH_NAMESPACE} with a selector selects nothing"
        elif world.workloads is None or any(
            each.namespace == obj.ref.namespace and labels_match(labels, each.labels)
            for each in world.workloads
        ):
            continue
        else:
            message = f"selects {wanted}, which no running workload of {obj.ref.namespace} has"
        yield finding(Code.EMPTY_SELECTOR, message, ref=obj.ref, field="spec.selector.matchLabels")


def _rivals(world: World) -> Iterator[Finding]:
    """Of several policies for one scope the oldest counts."""
    owners: dict[tuple[str, Labels], ConfigObject] = {}
    for obj in world.kind("PeerAuthentication"):
        scope = (obj.ref.namespace, obj.spec.labels)
        older = owners.setdefault(scope, obj)
        if older is not obj:
            message = f"has no effect: {older.ref} is older and is for the same workloads"
            yield finding(Code.POLICY_CONFLICT, message, ref=obj.ref)


def _callers(world: World) -> Iterator[Finding]:
    """DestinationRules that send plaintext, or TLS of their own, to where mutual TLS is demanded."""
    policies = list(world.kind("PeerAuthentication"))
    if not policies:
        return
    for obj in world.kind("DestinationRule"):
        host = world.host(obj, obj.spec.host)
        service = world.services.get(host)
        if service is None or service.external:
            continue
        for field, labels, tls in _client_tls(obj):
            if tls.mode is TLSMode.ISTIO_MUTUAL:
                continue
            strict = _strict(policies, service.namespace, _labels_behind(world, host, labels))
            if strict is not None:
                message = (
                    f"is {tls.mode}, but {strict.ref} demands mutual TLS of callers of {host}; "
                    "their connections are refused"
                )
                remedy = "use ISTIO_MUTUAL or leave tls out"
                yield finding(Code.MTLS_CONFLICT, message, ref=obj.ref, field=f"{field}.mode", remedy=remedy)


def _client_tls(obj: ConfigObject) -> Iterator[tuple[str, Labels, ClientTLSSettings]]:
    """The TLS settings of a rule: field path, the labels of the endpoints they are for, settings."""
    levels = [("spec.trafficPolicy", (), obj.spec.traffic_policy)]
    levels += [
        (f"spec.subsets[{index}].trafficPolicy", subset.labels, subset.traffic_policy)
        for index, subset in enumerate(obj.spec.subsets)
    ]
    for field, labels, policy in levels:
        if policy is not None and policy.tls is not None:
            yield f"{field}.tls", labels, policy.tls


def _labels_behind(world: World, host: str, wanted: Labels) -> list[Labels]:
    """The label sets of the endpoints meant; where nobody knows the endpoints, the wanted labels alone."""
    endpoints = () if world.endpoints is None else world.endpoints.get(host, ())  # type: ignore[call-overload]
    found = {each.labels for each in endpoints if labels_match(wanted, each.labels)}
    return sorted(found) or [wanted]


def _strict(policies: list[ConfigObject], namespace: str, label_sets: list[Labels]) -> ConfigObject | None:
    """The policy that demands mutual TLS of all of these workloads."""
    deciding = [_deciding(policies, namespace, labels) for labels in label_sets]
    if all(obj is not None and _mode(obj) is Mode.STRICT for obj in deciding):
        return deciding[0]
    return None


def _deciding(policies: list[ConfigObject], namespace: str, labels: Labels) -> ConfigObject | None:
    """The policy that sets a workload's mode: its own, its namespace's, the mesh's."""
    scopes = (
        [
            o
            for o in policies
            if o.ref.namespace == namespace and o.spec.labels and namespace != MESH_NAMESPACE
        ],
        [o for o in policies if o.ref.namespace == namespace and not o.spec.labels],
        [o for o in policies if o.ref.namespace == MESH_NAMESPACE and not o.spec.labels],
    )
    for scope in scopes:
        first = next((obj for obj in scope if labels_match(obj.spec.labels, labels)), None)
        if first is not None and _mode(first) is not None:
            return first
    return None


def _mode(obj: ConfigObject) -> Mode | None:
    spec: PeerAuthentication = obj.spec
    return spec.mode
