"""The ``status`` of objects, as the HTTP API shows it.

What a status says is computed when somebody asks (:mod:`retia.analysis.status`). Here it gets what only a
running controller knows: which gateway proxies serve a Gateway, whether they have taken their configuration,
and since when a condition has been as it is. The latter is remembered for as long as this process runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from retia.analysis.status import NOBODY, Serving, status_of
from retia.analysis.status.remembering import RememberingView
from retia.config.kinds import KINDS
from retia.control import delivery
from retia.control.core import Core
from retia.control.registry import HostState, ProxyState
from retia.model.ids import HostId, Namespace, ProxyId
from retia.model.mesh import Proxy, ProxyKind
from retia.model.objects import ConfigObject, ObjectRef
from retia.model.snapshot import Snapshot
from retia.policy.gateway_api.names import (
    CONTROLLER,
    DEFAULT_CLASS,
    GATEWAY,
    GATEWAY_LABEL,
    LISTENER_SETS,
    gateway_ref,
)
from retia.sources.store import StoredObject

MOST_REMEMBERED = 20_000
"""Conditions whose last change is remembered; above, all are forgotten and count from then on."""
_NOBODY = Proxy(ProxyId("-"), ProxyKind.SIDECAR, Namespace(""), "", HostId(""))
"""Statuses are of nobody's view."""
CLASS_REF = ObjectRef("GatewayClass", Namespace(""), DEFAULT_CLASS)


class Statuses:
    """Of all objects of one controller."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._seen: tuple[Snapshot, RememberingView] | None = None
        self._since: dict[tuple[Any, ...], tuple[tuple[Any, ...], str]] = {}

    def of(self, stored: StoredObject) -> dict[str, Any] | None:
        """The status of an object; ``None``: it has none, or isn't in the facts yet."""
        view = self._view()
        obj: ConfigObject | None = view.fact("config", *stored.ref.key)
        if obj is None and stored.ref == CLASS_REF:
            spec = KINDS["GatewayClass"].model.model_validate(stored.document["spec"])
            obj = ConfigObject(CLASS_REF, spec)
        if obj is None:
            return None
        status = status_of(view, obj, stored.revision, self._serving(obj))
        if status is None:
            return None
        for path, condition in _conditions(status, ()):
            self._put_time((stored.ref, *path, condition["type"]), condition)
        return status

    def _view(self) -> RememberingView:
        snapshot = self._core.pipeline.engine.snapshot
        if self._seen is None or self._seen[0] is not snapshot:
            self._seen = (snapshot, RememberingView(snapshot, _NOBODY))
        return self._seen[1]

    def _put_time(self, key: tuple[Any, ...], condition: dict[str, Any]) -> None:
        if len(self._since) > MOST_REMEMBERED:
            self._since.clear()
        now = (condition["status"],)
        known = self._since.get(key)
        if known is None or known[0] != now:
            moment = datetime.fromtimestamp(int(self._core.clock.now()), UTC)
            known = self._since[key] = (now, moment.strftime("%Y-%m-%dT%H:%M:%SZ"))
        condition["lastTransitionTime"] = known[1]

    def _serving(self, obj: ConfigObject) -> Serving:
        """Who serves a Gateway, or the Gateway of a ListenerSet."""
        if obj.ref.kind == GATEWAY:
            ref = obj.ref
        elif obj.ref.kind in LISTENER_SETS:
            parent = obj.spec.parent_ref
            ref = gateway_ref(parent.namespace or obj.ref.namespace, parent.name)
        else:
            return NOBODY
        found = [(host, proxy) for host, proxy in self._core.registry.all_proxies() if _serves(proxy, ref)]
        live = [pair for pair in found if self._is_live(pair[0])]
        refusals = sorted(error for _, proxy in live for _, error in proxy.nacked.values())
        return Serving(
            addresses=tuple(sorted({_address(host, proxy) for host, proxy in live})),
            proxies=len(live),
            rejected=refusals[0] if refusals else "",
            pending=any(self._is_pending(proxy) for _, proxy in live),
        )

    def _is_live(self, host: HostState) -> bool:
        return self._core.registry.leases.state(host.id, self._core.clock.monotonic()) == "valid"

    def _is_pending(self, proxy: ProxyState) -> bool:
        synced = delivery.sync_of(self._core, proxy)
        return not synced or any(each.acked < each.wanted for each in synced.values())


def default_class() -> StoredObject:
    """The GatewayClass that is there without anybody applying it."""
    document = {
        "apiVersion": KINDS["GatewayClass"].api_version,
        "kind": "GatewayClass",
        "metadata": {"name": DEFAULT_CLASS},
        "spec": {"controllerName": CONTROLLER},
    }
    return StoredObject(ref=CLASS_REF, document=document, revision=0, created=0)


def _serves(proxy: ProxyState, ref: ObjectRef) -> bool:
    mine = proxy.proxy
    return (
        mine.kind is ProxyKind.GATEWAY
        and mine.namespace == ref.namespace
        and dict(mine.labels).get(GATEWAY_LABEL) == ref.name
    )


def _address(host: HostState, proxy: ProxyState) -> str:
    return proxy.proxy.edge_address or host.hello.advertise_address or "127.0.0.1"


def _conditions(value: Any, path: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    """All conditions in a status, with where they stand."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "conditions":
                yield from ((path, each) for each in inner)
            else:
                yield from _conditions(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _conditions(
                inner, (*path, inner.get("name", index) if isinstance(inner, dict) else index)
            )
