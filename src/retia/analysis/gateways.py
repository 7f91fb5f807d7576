"""Istio's gateways: rules for gateways that do not exist, TLS without a certificate, selectors of nobody.

What is wrong with Gateway API's is said by :mod:`retia.analysis.status`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from retia.analysis.world import World
from retia.config.codes import Code, finding
from retia.config.schema.gateway import ServerTLSMode
from retia.config.schema.virtual_service import MESH_GATEWAY
from retia.model.finding import Finding
from retia.model.ids import HostId, Namespace, ProxyId
from retia.model.mesh import Proxy, ProxyKind, labels_match
from retia.model.objects import ConfigObject
from retia.model.snapshot import FactKey, PlainView, Snapshot, View
from retia.policy.edge.secrets import key_pair, trust

_SCHEME = "kubernetes://"
_NEEDS_CERTIFICATE = (ServerTLSMode.SIMPLE, ServerTLSMode.MUTUAL, ServerTLSMode.OPTIONAL_MUTUAL)


def check(world: World) -> Iterator[Finding]:
    known = {(obj.ref.namespace, obj.ref.name) for obj in world.kind("Gateway")}
    for obj in world.kind("VirtualService"):
        for field, name in _named_gateways(obj):
            namespace, _, rest = name.rpartition("/")
            if (namespace or obj.ref.namespace, rest) not in known:
                message = f"is {name}, but there is no Gateway {namespace or obj.ref.namespace}/{rest}"
                yield finding(Code.UNKNOWN_GATEWAY, message, ref=obj.ref, field=field)
    gateways = list(world.kind("Gateway"))
    if not gateways:
        return
    view = _secrets(world)
    for obj in gateways:
        yield from _certificates(world, view, obj)
        yield from _selector(world, obj)


def _named_gateways(obj: ConfigObject) -> Iterator[tuple[str, str]]:
    for index, name in enumerate(obj.spec.gateways):
        if name != MESH_GATEWAY:
            yield f"spec.gateways[{index}]", name
    for kind in ("http", "tls", "tcp"):
        for index, rule in enumerate(getattr(obj.spec, kind)):
            for number, match in enumerate(rule.match):
                for position, name in enumerate(match.gateways):
                    if name != MESH_GATEWAY and name not in obj.spec.gateways:
                        yield f"spec.{kind}[{index}].match[{number}].gateways[{position}]", name


def _selector(world: World, obj: ConfigObject) -> Iterator[Finding]:
    if world.workloads is None or not obj.spec.selector:
        return
    if not any(labels_match(obj.spec.selector, each.labels) for each in world.workloads):
        wanted = ", ".join(f"{key}={value}" for key, value in obj.spec.selector)
        message = f"selects {wanted}, which no running gateway has; nothing listens for it"
        yield finding(Code.EMPTY_SELECTOR, message, ref=obj.ref, field="spec.selector")


# -- certificates ------------------------------------------------------------------------------------------


def _certificates(world: World, view: View, obj: ConfigObject) -> Iterator[Finding]:
    for index, server in enumerate(obj.spec.servers):
        tls = server.tls
        if tls is None or tls.mode not in _NEEDS_CERTIFICATE:
            continue
        field = f"spec.servers[{index}].tls"
        names = [(f"{field}.credentialName", tls.credential_name)] if tls.credential_name else []
        names += [(f"{field}.credentialNames[{i}]", name) for i, name in enumerate(tls.credential_names)]
        names = [(where, name.removeprefix(_SCHEME)) for where, name in names]
        for where, name in names:
            wrong = _wrong(world, view, obj, name)
            if wrong:
                message = f"is {name}, but {wrong}"
                yield finding(Code.NO_CERTIFICATE, message, ref=obj.ref, field=where)
        if tls.mode is ServerTLSMode.MUTUAL and names and not tls.ca_cert_credential_name:
            yield from _authority(world, view, obj, *names[0])


def _authority(world: World, view: View, obj: ConfigObject, field: str, name: str) -> Iterator[Finding]:
    """Whose certificates of clients are accepted."""
    spaces = _namespaces(world, obj)
    found = [trust(view, f"{space}/{name}").wrong for space in spaces]
    if found and all(found):
        message = f"is {name}, but {found[0]}: no client can be verified"
        yield finding(Code.NO_CERTIFICATE, message, ref=obj.ref, field=field)


def _wrong(world: World, view: View, obj: ConfigObject, name: str) -> str:
    """Why the secret can't be used in any namespace in which the gateway's proxies look; empty: it can."""
    found = [key_pair(view, f"{space}/{name}").wrong for space in _namespaces(world, obj)]
    return found[0] if found and all(found) else ""


def _namespaces(world: World, obj: ConfigObject) -> list[str]:
    """Those of the gateway's proxies; where none runs, any in which there is a secret, and its own."""
    mine = {w.namespace for w in world.workloads or () if labels_match(obj.spec.selector, w.labels)}
    if mine and obj.spec.selector:
        return sorted(mine)
    return [obj.ref.namespace, *sorted({secret.ref.namespace for secret in world.kind("Secret")})]


def _secrets(world: World) -> View:
    facts: dict[FactKey, Any] = {("config", *obj.ref.key): obj for obj in world.kind("Secret")}
    nobody = Proxy(ProxyId("-"), ProxyKind.GATEWAY, Namespace(""), "", HostId(""))
    return PlainView(Snapshot().with_changes(facts)[0], nobody)
