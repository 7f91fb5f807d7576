"""Which routes are attached to which listeners, or why not."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from retia.model.objects import ConfigObject, ObjectRef
from retia.model.snapshot import View
from retia.policy.gateway_api import hostnames
from retia.policy.gateway_api.listeners import Listener, Reason, class_accepted, lets_in, listeners
from retia.policy.gateway_api.names import (
    GROUP,
    GRPC_ROUTE,
    HTTP_ROUTE,
    LISTENER_SETS,
    TCP_ROUTE,
    gateway_ref,
    group_of,
    key_of,
    parent_key,
)
from retia.policy.indexes import objects

NOT_ALLOWED = "NotAllowedByListeners"
NO_PARENT = "NoMatchingParent"
NO_HOST = "NoMatchingListenerHostname"


@dataclass(frozen=True, slots=True)
class Attached:
    """A route at one listener."""

    route: ObjectRef
    parent: int
    """The index in ``parentRefs``."""
    listener: str
    """The listener's key."""
    hosts: tuple[str, ...]
    """The names that listener and route share."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A route that a listener would take but for another route, which came first."""

    route: ObjectRef
    parent: int
    reason: Reason


@dataclass(frozen=True, slots=True)
class Attachments:
    """All routes of a Gateway, the oldest first."""

    items: tuple[Attached, ...] = ()
    refused: tuple[Refused, ...] = ()

    def of(self, listener: Listener) -> tuple[Attached, ...]:
        return tuple(each for each in self.items if each.listener == listener.key)


def is_gateway_parent(parent: Any) -> bool:
    """A Gateway, or a set of listeners for one."""
    if (parent.group, parent.kind) == (GROUP, "Gateway"):
        return True
    return parent.kind in LISTENER_SETS and parent.group == group_of(parent.kind)


def gateway_of_parent(view: View, route: ObjectRef, parent: Any) -> ObjectRef | None:
    """The Gateway that a parent means, if it is there and ours; that of a ListenerSet is its parent."""
    namespace = parent.namespace or route.namespace
    name = parent.name
    if parent.kind in LISTENER_SETS:
        listener_set: ConfigObject | None = view.fact("config", parent.kind, namespace, name)
        if listener_set is None:
            return None
        ref = listener_set.spec.parent_ref
        namespace, name = ref.namespace or namespace, ref.name
    found: ConfigObject | None = view.fact("config", *gateway_ref(namespace, name).key)
    if found is None or not class_accepted(view, found.spec.gateway_class_name):
        return None
    return found.ref


def attachments(view: View, key: tuple[str, str]) -> Attachments:
    """The routes of the Gateway ``(namespace, name)``."""
    found = view.query(listeners, key)
    owners = dict.fromkeys([gateway_ref(*key), *(each.owner for each in found)])
    routes: dict[ObjectRef, ConfigObject] = {}
    for owner in owners:
        routes.update({obj.ref: obj for obj in objects(view, "route-parent", key_of(owner))})
    by_owner: dict[str, list[Listener]] = defaultdict(list)
    for each in found:
        by_owner[key_of(each.owner)].append(each)
    items: dict[tuple[ObjectRef, str], Attached] = {}
    refused: list[Refused] = []
    taken: dict[tuple[str, str], list[Attached]] = defaultdict(list)
    for route in sorted(routes.values(), key=lambda obj: obj.order):
        for index, parent in enumerate(route.spec.parent_refs):
            mine = by_owner.get(owner_key(route.ref, parent), [])
            for here in _attach(view, route, index, mine):
                rival = _rival(here, taken[here.listener, _OTHER.get(here.route.kind, "")])
                if rival is not None:
                    refused.append(Refused(here.route, index, rival))
                elif (here.route, here.listener) not in items:
                    taken[here.listener, here.route.kind].append(here)
                    items[here.route, here.listener] = here
    return Attachments(tuple(items.values()), tuple(refused))


def owner_key(route: ObjectRef, parent: Any) -> str:
    return parent_key(parent.kind, parent.namespace or route.namespace, parent.name)


_OTHER = {HTTP_ROUTE: GRPC_ROUTE, GRPC_ROUTE: HTTP_ROUTE}
"""Routes of these kinds mustn't share a host name at one listener."""


def _rival(mine: Attached, taken: list[Attached]) -> Reason | None:
    """An older route of the other kind with the same host names."""
    for other in taken:
        if hostnames.overlap(other.hosts, mine.hosts):
            return Reason(NOT_ALLOWED, f"{other.route} is older and has the same host names")
    return None


def _attach(view: View, route: ConfigObject, index: int, mine: list[Listener]) -> list[Attached]:
    verdict = judge(view, route, index, mine)
    return list(verdict) if not isinstance(verdict, Reason) else []


def judge(
    view: View, route: ConfigObject, index: int, candidates: list[Listener]
) -> tuple[Attached, ...] | Reason:
    """The listeners of one parent that take a route, or why none does.

    ``candidates`` are all listeners of the parent.
    """
    parent = route.spec.parent_refs[index]
    named = [
        each
        for each in candidates
        if parent.section_name in (None, each.name) and parent.port in (None, each.port)
    ]
    if not named:
        wanted = [f"sectionName {parent.section_name}"] if parent.section_name else []
        wanted += [f"port {parent.port}"] if parent.port else []
        return Reason(NO_PARENT, f"no listener has {' and '.join(wanted) or 'the parent'}")
    open_ = [each for each in named if _lets_in(view, route, each)]
    if not open_:
        names = ", ".join(each.name for each in named)
        message = f"no listener ({names}) lets {route.ref.kind}s of namespace {route.ref.namespace} in"
        return Reason(NOT_ALLOWED, message)
    wanted_hosts = getattr(route.spec, "hostnames", ())
    fitting = []
    for each in open_:
        shared = (
            hostnames.shared(each.spec.hostname, wanted_hosts)
            if route.ref.kind != TCP_ROUTE
            else (each.host,)
        )
        if shared:
            fitting.append(Attached(route.ref, index, each.key, shared))
    if not fitting:
        return Reason(NO_HOST, f"no listener has a host name of {', '.join(wanted_hosts)}")
    good = {each.key for each in open_ if each.accepted}
    attached = tuple(each for each in fitting if each.listener in good)
    return attached or Reason(NO_PARENT, "the listeners that it names are not accepted themselves")


def _lets_in(view: View, route: ConfigObject, listener: Listener) -> bool:
    rule = listener.spec.allowed_routes.namespaces
    return route.ref.kind in listener.kinds and lets_in(
        view, rule, listener.owner.namespace, route.ref.namespace
    )
