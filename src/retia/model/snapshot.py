"""All facts at one revision, and the view of them that records what is read.

A fact's *key* is a tuple of strings whose first item is its kind. A fact's *stamp* is the revision at which
its content last changed: equal stamps for one key mean equal content, so a cache compares integers and never
content. The absence of a fact has a stamp as well.

Index entries are facts too (``("index", <index>, <key>)``): tuples of the keys that belong together, kept by
whoever makes the snapshot, so that "the virtual services that name this host" is one read.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol, TypeVar

from retia.model.mesh import Proxy

FactKey = tuple[str, ...]
T = TypeVar("T")
K = TypeVar("K", bound=Hashable)
_EMPTY: MappingProxyType[FactKey, tuple[int, Any]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An immutable set of facts; :meth:`with_changes` makes the next one."""

    revision: int = 0
    facts: MappingProxyType[FactKey, tuple[int, Any]] = field(default_factory=lambda: _EMPTY, repr=False)

    def get(self, key: FactKey) -> Any:
        """The fact, or ``None``."""
        entry = self.facts.get(key)
        return None if entry is None else entry[1]

    def stamp(self, key: FactKey) -> int:
        """The revision at which the fact last changed; 0: never seen. A removed fact keeps a stamp."""
        entry = self.facts.get(key)
        return 0 if entry is None else entry[0]

    def with_changes(self, changes: Mapping[FactKey, Any]) -> tuple[Snapshot, frozenset[FactKey]]:
        """The next snapshot and the keys whose content really differs; ``None`` removes a fact."""
        real = {k: v for k, v in changes.items() if self.get(k) != v}
        if not real:
            return self, frozenset()
        revision = self.revision + 1
        facts = self.facts.copy()  # the one cost that grows with the mesh: about 10 ns a fact
        for key, value in real.items():
            facts[key] = (revision, value)
        return Snapshot(revision, MappingProxyType(facts)), frozenset(real)


class View(Protocol):
    """A snapshot as one proxy sees it. Every call is recorded as a read of the calling function."""

    def fact(self, *key: str) -> Any:
        """The fact with that key, or ``None``; absence is recorded too."""

    def index(self, name: str, key: str) -> tuple[Any, ...]:
        """The entries of an index; empty where there are none."""

    def proxy(self, attribute: str) -> Any:
        """One attribute of the proxy (a field or property of :class:`~retia.model.mesh.Proxy`)."""

    def query(self, function: Callable[[View, K], T], key: K) -> T:
        """The memoised result of ``function(view, key)``; it must be pure and its result hashable."""


class PlainView:
    """A view that records nothing: for tests, for the command line and as the reference of "full"."""

    def __init__(self, snapshot: Snapshot, proxy: Proxy) -> None:
        self._snapshot = snapshot
        self._proxy = proxy

    def fact(self, *key: str) -> Any:
        return self._snapshot.get(key)

    def index(self, name: str, key: str) -> tuple[Any, ...]:
        return self._snapshot.get(("index", name, key)) or ()

    def proxy(self, attribute: str) -> Any:
        return getattr(self._proxy, attribute)

    def query(self, function: Callable[[View, K], T], key: K) -> T:
        return function(self, key)
