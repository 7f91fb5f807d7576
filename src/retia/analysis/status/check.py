"""What the statuses say that people should know, as findings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from retia.analysis.status import policies, routes
from retia.analysis.status.remembering import RememberingView
from retia.analysis.world import World
from retia.config.codes import Code, finding
from retia.model.finding import Finding
from retia.model.ids import Host, Namespace, ProxyId
from retia.model.mesh import MeshSettings, Proxy, ProxyKind
from retia.model.objects import ConfigObject
from retia.model.snapshot import FactKey, Snapshot
from retia.policy.gateway_api import backend_tls, provider
from retia.policy.gateway_api.listeners import class_accepted, listeners
from retia.policy.gateway_api.mesh import is_mesh_parent
from retia.policy.gateway_api.names import GATEWAY, GRPC_ROUTE, HTTP_ROUTE, TCP_ROUTE, TLS_ROUTE
from retia.policy.indexes import entries

_READ = (
    GATEWAY, "GatewayClass", "ListenerSet", "XListenerSet", HTTP_ROUTE, GRPC_ROUTE, TCP_ROUTE, TLS_ROUTE,
    "ReferenceGrant", "BackendTLSPolicy", "Secret", "ConfigMap", "Namespace",
)  # fmt: skip
_ROUTES = (HTTP_ROUTE, GRPC_ROUTE, TCP_ROUTE, TLS_ROUTE)
_CODES = {
    "BackendNotFound": Code.UNKNOWN_HOST,
    "UnsupportedProtocol": Code.PROTOCOL_MISMATCH,
}


def check(world: World) -> Iterator[Finding]:
    mine = [obj for obj in world.objects if obj.ref.kind in _READ]
    if not any(obj.ref.kind not in ("Secret", "ConfigMap", "Namespace") for obj in mine):
        return
    view = view_of(world, mine)
    for obj in mine:
        if obj.ref.kind in _ROUTES:
            yield from _route(world, view, obj)
        elif obj.ref.kind == GATEWAY and class_accepted(view, obj.spec.gateway_class_name):
            for each in view.query(listeners, (obj.ref.namespace, obj.ref.name)):
                yield from provider.findings(each)
        elif obj.ref.kind == "BackendTLSPolicy" and world.complete:
            yield from _policy(view, obj)


def view_of(world: World, objects: list[ConfigObject]) -> RememberingView:
    """The facts that the Gateway API is read from, as nobody in particular sees them."""
    settings = MeshSettings(dns_suffix=world.suffix)
    facts: dict[FactKey, Any] = {("mesh",): settings}
    indexed: dict[FactKey, list[Any]] = {}
    for obj in objects:
        facts["config", *obj.ref.key] = obj
        for index, key in entries(obj, settings):
            indexed.setdefault(("index", index, key), []).append(obj.ref)
    facts.update({key: tuple(refs) for key, refs in indexed.items()})
    facts.update({("service", host): service for host, service in world.services.items()})
    nobody = Proxy(ProxyId("-"), ProxyKind.SIDECAR, Namespace(""), "", Host(""))  # type: ignore[arg-type]
    return RememberingView(Snapshot().with_changes(facts)[0], nobody)


def _route(world: World, view: RememberingView, obj: ConfigObject) -> Iterator[Finding]:
    for index in range(len(obj.spec.parent_refs)):
        reason = routes.refusal(view, obj, index)
        field = f"spec.parentRefs[{index}]"
        if reason is not None and (world.complete or not is_mesh_parent(obj.spec.parent_refs[index])):
            message = f"does not take the route: {reason.message} ({reason.word}); it has no effect there"
            yield finding(Code.UNKNOWN_GATEWAY, message, ref=obj.ref, field=field)
        elif reason is None and not routes.has_parent(view, obj, index):
            message = "names no Gateway or Service of this mesh; the route has no effect there"
            yield finding(Code.UNKNOWN_GATEWAY, message, ref=obj.ref, field=field)
        if is_mesh_parent(obj.spec.parent_refs[index]):
            yield from _beside_virtual_service(world, obj, index)
    for trouble in routes.troubles(view, obj):
        if not world.complete and trouble.reason.word == "BackendNotFound":
            continue
        code = _CODES.get(trouble.reason.word, Code.UNKNOWN_OBJECT)
        who = "requests that the rule matches" if trouble.dropped else "requests of its share"
        message = f"{trouble.reason.message} ({trouble.reason.word}); {who} get an error"
        yield finding(code, message, ref=obj.ref, field=trouble.field)


def _beside_virtual_service(world: World, obj: ConfigObject, index: int) -> Iterator[Finding]:
    """A VirtualService for the same host holds alone."""
    parent = obj.spec.parent_refs[index]
    host = f"{parent.name}.{parent.namespace or obj.ref.namespace}.{world.suffix}"
    for rival in world.kind("VirtualService"):
        rules = rival.spec.http if obj.ref.kind in (HTTP_ROUTE, GRPC_ROUTE) else rival.spec.tcp
        if rules and rival.spec.applies_to_mesh and host in [world.host(rival, h) for h in rival.spec.hosts]:
            message = f"is {host}, for which {rival.ref} holds alone; the route has no effect where it does"
            remedy = "write the rules for one host in one way"
            field = f"spec.parentRefs[{index}]"
            yield finding(Code.HOST_CONFLICT, message, ref=obj.ref, field=field, remedy=remedy)
            return


def _policy(view: RememberingView, obj: ConfigObject) -> Iterator[Finding]:
    texts, wrong = backend_tls.authorities(view, obj)
    usable = bool(texts) or obj.spec.validation.well_known_ca_certificates == "System"
    for reason in wrong:
        message = f"{reason.message} ({reason.word})"
        yield finding(Code.UNKNOWN_OBJECT, message, ref=obj.ref, field="spec.validation.caCertificateRefs")
    for index in range(len(obj.spec.target_refs)):
        refused = policies.refusal(view, obj, index, usable=usable)
        if refused is not None:
            code = Code.POLICY_CONFLICT if refused.word == "Conflicted" else Code.UNKNOWN_OBJECT
            message = f"{refused.message} ({refused.word})"
            yield finding(code, message, ref=obj.ref, field=f"spec.targetRefs[{index}]")
