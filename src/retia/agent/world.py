"""What one proxy of this host may have: the :class:`~retia.xds.stream.World` behind its stream.

Resources come from the controller by subscription. Three things are made here: the own secrets (from the
workload's key, which no one else may see), an answer from the *standby copy* while the controller is away,
and an answer for a name that is in neither, so that a request never hangs: a virtual host that says 503, or
no cluster. Such an answer is *provisional*: it is replaced as soon as the controller says what is so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from envoy.config.route.v3 import route_components_pb2
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2

from retia.agent.identity import Pair
from retia.model.resource import Built, Name, Resource, TypeUrl
from retia.xds.stream import LISTED
from retia.xds.wire import absent, encode

OWN_SECRET = "default"
BUNDLE_SECRET = "ROOTCA"
OWN_SECRETS = (OWN_SECRET, BUNDLE_SECRET)
"""Those that are made here; others come from the controller."""
UNKNOWN_BODY = (
    "retia: the controller is away, and this host has no copy of this destination's configuration\n"
)

_VirtualHost: Any = route_components_pb2.VirtualHost  # type: ignore[attr-defined, unused-ignore]
_Secret: Any = secret_pb2.Secret  # type: ignore[attr-defined, unused-ignore]

Keep = Callable[[Resource], None]
Drop = Callable[[Name], None]


class ProxyWorld:
    """``keep`` and ``drop`` store what the controller said; ``standby`` looks into the standby copy."""

    def __init__(self, keep: Keep, drop: Drop, standby: Callable[[Name], Resource | None]) -> None:
        self._keep = keep
        self._drop = drop
        self._standby = standby
        self._resources: dict[Name, Resource] = {}
        self._canonical: dict[Name, Name] = {}
        """Aliases that differ from the resource's name."""
        self._provisional: set[Name] = set()
        """Names whose resource was made here for want of a better one."""
        self._accepted: dict[Name, Resource] = {}
        """What the proxy goes on with while it has not accepted the newer version."""

    # The world

    def get(self, name: Name) -> Resource | None:
        return self._resources.get(self._canonical.get(name, name))

    def listed(self, type_url: TypeUrl) -> Sequence[str] | None:
        """Listeners and the virtual hosts known so far; ``None`` for listeners while there are none: a proxy
        that is told "none" considers itself ready."""
        if type_url is TypeUrl.CLUSTER:
            return ()
        names = [n.name for n, r in self._resources.items() if n.type is type_url and r.exists]
        if type_url is TypeUrl.LISTENER and not names:
            return None
        return sorted(names)

    # What comes from the controller

    def load(self, resources: Iterable[Resource]) -> None:
        """Take what was held before a restart."""
        for resource in resources:
            self._put(resource)

    def apply(self, resources: Iterable[Resource], removed: Iterable[Name]) -> set[Name]:
        """Take what the controller says; returns the names that may have another answer now."""
        changed: set[Name] = set()
        for resource in resources:
            name = Name(resource.type, resource.name)
            same = self._resources.get(name)
            self._provisional.discard(name)
            if same is not None and same.version == resource.version and same.aliases == resource.aliases:
                self._write(resource)
                continue
            if same is not None and same.exists:
                self._accepted.setdefault(name, same)
            changed |= self._put(resource)
            self._write(resource)
        for name in removed:
            self._accepted.pop(name, None)
            changed |= self._remove(name)
            self._drop(name)
        return _with_lists(changed)

    def _write(self, resource: Resource) -> None:
        """Keep a resource on disk. Of secrets only memory has a copy: the proxy has one too, and a controller
        gives them again."""
        if resource.type is not TypeUrl.SECRET:
            self._keep(resource)

    def accepted(self, resource: Resource) -> None:
        """The proxy has taken this version."""
        name = Name(resource.type, resource.name)
        current = self._resources.get(name)
        if current is not None and current.version == resource.version:
            self._accepted.pop(name, None)

    def refused(self, resource: Resource) -> set[Name]:
        """The proxy has refused this version: go back to the one before, which a restarted proxy gets too.

        A version shaped by a security object is not taken back: what it guards stays shut. Returns the names
        that have another answer now.
        """
        name = Name(resource.type, resource.name)
        current = self._resources.get(name)
        good = self._accepted.get(name)
        if good is None or current is None or current.version != resource.version or resource.security:
            return set()
        del self._accepted[name]
        changed = self._put(good)
        self._write(good)
        return _with_lists(changed)

    def _put(self, resource: Resource) -> set[Name]:
        name = Name(resource.type, resource.name)
        changed = {name}
        old = self._resources.get(name)
        if old is not None:
            changed |= self._unlink(name, old)
        self._resources[name] = resource
        self._canonical.pop(name, None)
        for alias in resource.aliases:
            other = Name(resource.type, alias)
            if other == name:
                continue
            if self._resources.pop(other, None) is not None:
                # It was thought not to exist, or had an answer of its own: now it is a spelling of this one.
                if other in self._provisional:
                    self._provisional.discard(other)
                else:
                    self._drop(other)
            self._canonical[other] = name
            changed.add(other)
        return changed

    def _unlink(self, name: Name, old: Resource) -> set[Name]:
        aliases = {Name(old.type, alias) for alias in old.aliases}
        for alias in aliases:
            if self._canonical.get(alias) == name:
                del self._canonical[alias]
        return aliases

    def _remove(self, name: Name) -> set[Name]:
        old = self._resources.pop(name, None)
        self._provisional.discard(name)
        changed = {name}
        if old is not None:
            changed |= self._unlink(name, old)
        for gone in changed:
            self._resources[gone] = absent(gone.type, gone.name)
        return changed

    # What is made here

    def answer_alone(self, names: Iterable[Name]) -> set[Name]:
        """Answer ``names`` without the controller; returns the names that have an answer now."""
        changed: set[Name] = set()
        queue = list(names)
        while queue:
            name = queue.pop()
            if name.type is TypeUrl.SECRET or self.get(name) is not None:
                continue
            found = self._standby(name)
            if found is None and name.type is TypeUrl.LISTENER:
                continue
            if found is None:
                changed |= self._put(unknown(name))
                self._provisional.add(name)
                continue
            changed |= self._put(found)
            self._keep(found)
            queue.extend(found.refs)
        return _with_lists(changed)

    def set_secrets(self, pair: Pair, bundle_pem: bytes) -> set[Name]:
        """The workload's certificate and the trust bundle; returns the names that changed."""
        own = _Secret(name=OWN_SECRET)
        own.tls_certificate.certificate_chain.inline_bytes = pair.chain_pem
        own.tls_certificate.private_key.inline_bytes = pair.key.reveal()
        bundle = _Secret(name=BUNDLE_SECRET)
        bundle.validation_context.trusted_ca.inline_bytes = bundle_pem
        changed: set[Name] = set()
        for secret in (own, bundle):
            name = Name(TypeUrl.SECRET, secret.name)
            resource = encode(
                TypeUrl.SECRET, Built(secret.name, secret.SerializeToString(deterministic=True))
            )
            old = self._resources.get(name)
            if old is None or old.version != resource.version:
                self._resources[name] = resource
                changed.add(name)
        return changed

    # What is held

    def held(self) -> list[Resource]:
        """What came from the controller (directly or by the standby copy), in order of name."""
        mine = {n for n in self._resources if n.type is not TypeUrl.SECRET} - self._provisional
        return [self._resources[n] for n in sorted(mine, key=str)]

    def subscriptions(self) -> set[Name]:
        """The names to follow at the controller."""
        return {n for n in self._resources if n.type not in (TypeUrl.SECRET, TypeUrl.LISTENER)}


def unknown(name: Name) -> Resource:
    """The answer for a name of which nothing is known and nothing can be learned at present."""
    if name.type is not TypeUrl.VIRTUAL_HOST or name.name.endswith("/_"):
        return absent(name.type, name.name)
    host = name.name.rpartition("/")[2]
    message = _VirtualHost(name=name.name)
    message.domains.append(host)
    route = message.routes.add()
    route.match.prefix = "/"
    route.direct_response.status = 503
    route.direct_response.body.inline_string = UNKNOWN_BODY
    built = Built(name.name, message.SerializeToString(deterministic=True), (name.name,))
    return encode(name.type, built)


def _with_lists(changed: set[Name]) -> set[Name]:
    lists = {
        Name(kind, LISTED)
        for kind in (TypeUrl.LISTENER, TypeUrl.VIRTUAL_HOST)
        if any(n.type is kind for n in changed)
    }
    return changed | lists
