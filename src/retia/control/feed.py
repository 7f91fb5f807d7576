"""What one proxy has been sent of what it wants, for a proxy that is served by its host's agent.

The agent speaks xDS to its proxies; to the agent goes the content only. A feed wants names: those that the
agent subscribes to, those on the lists that a proxy of its kind gets anyway, those that its workload is known
to use, and whatever these refer to. A name is dirty when it might have changed; :meth:`Feed.collect` looks at
the dirty ones and gives those that really differ from what was sent.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, field

import structlog

from retia.control.hub import Hub
from retia.model.mesh import Proxy
from retia.model.resource import Name, Resource, TypeUrl
from retia.translate.names import SECRET_OWN, SECRET_ROOT
from retia.xds.cache import Engine
from retia.xds.stream import LISTED, NAME_LIMIT
from retia.xds.wire import ABSENT_VERSION, PLACEHOLDER, aliased

_log = structlog.get_logger("retia.control.feed")

BATCH_BYTES = 512 * 1024
BATCH_NAMES = 256
"""A message is closed at either, so that none takes long to make; arbitrary."""

LISTS = (TypeUrl.CLUSTER, TypeUrl.LISTENER, TypeUrl.VIRTUAL_HOST)
OWN_SECRETS = (SECRET_OWN, SECRET_ROOT)
"""Made by the agent, from the workload's own key."""
MAX_NAMES = 16 * NAME_LIMIT
"""Names of one proxy; a proxy asks for at most :data:`NAME_LIMIT`, the others are those referred to."""


@dataclass(slots=True)
class Delivery:
    """One message to be: resources, what they refer to first, and names that don't exist."""

    resources: dict[Name, Resource] = field(default_factory=dict)
    removed: dict[Name, None] = field(default_factory=dict)
    size_bytes: int = 0

    def __bool__(self) -> bool:
        return bool(self.resources or self.removed)


class Feed:
    """The feed of one proxy. ``withheld`` are the versions that some proxy has refused; ``ring`` is called
    when there is something to collect."""

    def __init__(
        self, engine: Engine, hub: Hub, proxy: Proxy, withheld: Container[str], ring: Callable[[], None]
    ) -> None:
        self._engine = engine
        self._withheld = withheld
        self._hub = hub
        self._ring = ring
        self.proxy = proxy
        self._wanted: dict[Name, None] = {}
        self._told: dict[Name, str] = {}
        """Versions at the agent, by the resource's own name; ``ABSENT_VERSION``: told that there is none."""
        self._canonical: dict[Name, Name] = {}
        """The resource behind a name where it bears another one."""
        self._spellings: dict[Name, dict[str, None]] = {}
        self._dirty: dict[Name, bool] = {}
        """Names to look at; true: to be sent even if nothing differs."""
        self._asked: set[Name] = set()
        for kind in LISTS:
            self._want(Name(kind, LISTED))

    @property
    def dirty(self) -> bool:
        return bool(self._dirty)

    @property
    def told(self) -> Mapping[Name, str]:
        """What the agent has been sent for this proxy."""
        return self._told

    @property
    def requested(self) -> Iterable[Name]:
        """The names that the proxy itself asked for, and those on its lists."""
        listed = (n for n in self._told if n.type is TypeUrl.LISTENER)
        return (*self._asked, *listed)

    def replace_proxy(self, proxy: Proxy) -> None:
        """The proxy is different: all that it has may be."""
        if proxy != self.proxy:
            self.proxy = proxy
            for name in self._wanted:
                self._mark(name)
            self._ring()

    def hold(self, versions: Mapping[Name, str]) -> None:
        """The agent has these already, from an earlier session."""
        for name, version in versions.items():
            self._told[name] = version
            self._want(name)
        self._ring()

    def subscribe(self, names: Iterable[Name]) -> None:
        """The proxy wants ``names``; one that it asked for before in this session is sent again."""
        for name in names:
            self._want(name)
            self._mark(name, force=name in self._asked)
            self._asked.add(name)
        self._ring()

    def add_learned(self, names: Iterable[Name]) -> None:
        """The proxy will want ``names``: its workload has used them before."""
        for name in names:
            if name not in self._wanted and self._engine.resource(self.proxy, name).exists:
                self._want(name)
        self._ring()

    def unsubscribe(self, names: Iterable[Name]) -> None:
        names = [n for n in names if n in self._wanted]
        for name in names:
            del self._wanted[name]
            self._asked.discard(name)
            self._dirty.pop(name, None)
            self._unlink(name)
            self._told.pop(name, None)
        self._hub.leave(names, self)

    def close(self) -> None:
        """The proxy is gone."""
        self._hub.leave({*self._wanted, *self._told}, self)
        self._dirty.clear()

    def changed(self, names: list[Name]) -> None:
        """See :class:`retia.control.hub.Watcher`."""
        for name in names:
            self._mark(name)
        self._ring()

    def collect(self) -> Delivery:
        """What there is to send, up to the size of one message; :attr:`dirty` tells whether there is more."""
        delivery = Delivery()
        for _ in range(BATCH_NAMES):
            if not self._dirty or delivery.size_bytes >= BATCH_BYTES:
                break
            name = next(iter(self._dirty))
            force = self._dirty.pop(name)
            try:
                self._look(name, force, delivery)
            except Exception:  # noqa: BLE001 - one broken name must not stop the others
                _log.exception("a resource could not be made", resource=str(name), proxy=self.proxy.id)
        return delivery

    # -- one name ------------------------------------------------------------------------------------------

    def _mark(self, name: Name, force: bool = False) -> None:
        self._dirty[name] = self._dirty.get(name, False) or force

    def _want(self, name: Name) -> None:
        if name not in self._wanted and len(self._wanted) < MAX_NAMES:
            self._wanted[name] = None
            self._hub.watch(name, self)
            self._mark(name)

    def _look(self, name: Name, force: bool, delivery: Delivery) -> None:
        if name.name == LISTED:
            self._look_at_list(name.type)
            return
        if (name.type is TypeUrl.SECRET and name.name in OWN_SECRETS) or name.name.endswith(PLACEHOLDER):
            # Made by the agent, and by the stream machine itself.
            return
        resource = self._engine.resource(self.proxy, name)
        if not resource.exists:
            self._tell_absent(name, force, delivery)
            return
        own = Name(resource.type, resource.name)
        if resource.version in self._withheld and self._told.get(own) != resource.version:
            # The last good version stays, except where that would leave a security object without effect.
            if resource.security or self._told.get(own, ABSENT_VERSION) == ABSENT_VERSION:
                self._tell_absent(own, force, delivery)
            return
        if name == own:
            self._unlink(name)
        news = name != own and self._link(name, own) and name.name not in resource.aliases
        for ref in resource.refs:
            if ref not in self._wanted and ref != name:
                self._want(ref)
            if ref in self._dirty:
                self._look(ref, self._dirty.pop(ref), delivery)
        if self._told.get(own) == resource.version and not force and not news:
            return
        self._told[own] = resource.version
        self._hub.watch(own, self)
        foreign = tuple(s for s in self._spellings.get(own, ()) if s not in resource.aliases)
        delivery.removed.pop(own, None)
        delivery.resources[own] = aliased(resource, foreign)
        delivery.size_bytes += len(resource.wire)

    def _look_at_list(self, kind: TypeUrl) -> None:
        names = {Name(kind, n) for n in self._engine.listed(self.proxy, kind)}
        for name in sorted(names, key=str):
            self._want(name)
        if kind is TypeUrl.LISTENER:
            for name in [n for n in self._told if n.type is kind and n not in names]:
                self._mark(name)

    def _tell_absent(self, name: Name, force: bool, delivery: Delivery) -> None:
        self._unlink(name)
        if self._told.get(name) == ABSENT_VERSION and not force:
            return
        delivery.resources.pop(name, None)
        delivery.removed[name] = None
        if name in self._wanted:
            self._told[name] = ABSENT_VERSION
        else:
            self._told.pop(name, None)

    def _link(self, name: Name, own: Name) -> bool:
        old = self._canonical.get(name)
        if old == own:
            return False
        self._unlink(name)
        self._told.pop(name, None)
        self._canonical[name] = own
        self._spellings.setdefault(own, {})[name.name] = None
        return True

    def _unlink(self, name: Name) -> None:
        """``name`` is no longer answered by another resource; that one is looked at again."""
        own = self._canonical.pop(name, None)
        if own is None:
            return
        del self._spellings[own][name.name]
        if not self._spellings[own]:
            del self._spellings[own]
        if own in self._told:
            self._mark(own)
