"""Which VirtualServices hold for a host, as one client sees it, and where an object holds at all.

The most specific host wins (exact, then the longest wildcard). All objects for it that the client sees hold
together, the oldest first; how their rules are joined is :mod:`retia.policy.routing.merge`'s business.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from retia.model.ids import MESH_GATEWAY, gateway_name, wildcards_of
from retia.model.objects import ConfigObject, ObjectRef
from retia.model.snapshot import View
from retia.policy.registry import mesh
from retia.policy.scope import takes_rules
from retia.policy.visibility import visible

MESH = MESH_GATEWAY
"""The reserved name of the gateway that all sidecars are."""


@dataclass(frozen=True, slots=True)
class Scope:
    """Where rules are read: the gateways, ``namespace/name`` or ``mesh``, that the caller is."""

    gateways: frozenset[str] = frozenset({MESH})
    tls: bool = False
    """Requests come by HTTPS, which decides the port that a redirect leaves out."""


SIDECAR = Scope()


def gateways_of(obj: ConfigObject) -> frozenset[str]:
    """The gateways that a VirtualService is bound to, as ``namespace/name``; ``mesh`` where it names none."""
    named = obj.spec.gateways or (MESH,)
    return frozenset(gateway_name(each, obj.ref.namespace) for each in named)


def holds_for(view: View, obj: ConfigObject, scope: Scope = SIDECAR) -> bool:
    """Whether a VirtualService is bound to one of the gateways and exported to the proxy's namespace."""
    if gateways_of(obj).isdisjoint(scope.gateways):
        return False
    export_to = obj.spec.export_to or mesh(view).virtual_service_export
    # Who is exported to all is so whoever asks: then proxies of all namespaces share what is built of it.
    return "*" in export_to or not export_to or visible(export_to, obj.ref.namespace, view.proxy("namespace"))


def virtual_services(view: View, host: str, *kinds: str) -> tuple[ConfigObject, ...]:
    """The objects that hold for a host at a sidecar, oldest first, of those with rules of ``kinds``
    (``http``, ``tls``, ``tcp``): all that name the most specific host that any of them names."""
    exact = view.index("vs-host", host)
    if exact and (found := _of(view, host, exact, kinds)):
        return found
    for keys in view.query(covering, host.partition(".")[2]):
        if found := _of(view, host, keys, kinds):
            return found
    return ()


def covering(view: View, parent: str) -> tuple[tuple[ObjectRef, ...], ...]:
    """The keys of objects for wildcards that cover every host in the domain ``parent``, narrowest first."""
    levels = (view.index("vs-host", wildcard) for wildcard in wildcards_of(f"x.{parent}" if parent else "x"))
    return tuple(keys for keys in levels if keys)


def _of(view: View, host: str, keys: Iterable[ObjectRef], kinds: tuple[str, ...]) -> tuple[ConfigObject, ...]:
    found: list[ConfigObject] = []
    for key in keys:
        obj: ConfigObject | None = view.fact("config", *key.key)
        if obj is None or not any(getattr(obj.spec, kind) for kind in kinds):
            continue
        if holds_for(view, obj) and takes_rules(view, obj.ref.namespace, host):
            found.append(obj)
    return tuple(found)
