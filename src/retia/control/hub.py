"""Who watches which name: a change reaches those whom it concerns, and nobody else is asked."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterable
from typing import Protocol

from retia.model.resource import Name


class Watcher(Protocol):
    """Somebody who wants to know of changes. Must be hashable by identity."""

    def changed(self, names: list[Name]) -> None:
        """These names may have other content. Must be quick: it is called for all in one turn."""


class Hub:
    """Names and their watchers."""

    def __init__(self) -> None:
        self._watchers: dict[Name, set[Watcher]] = {}

    def watch(self, name: Name, watcher: Watcher) -> None:
        """Tell ``watcher`` of changes of ``name``; repeating it changes nothing."""
        watchers = self._watchers.get(name)
        if watchers is None:
            self._watchers[name] = {watcher}
        else:
            watchers.add(watcher)

    def leave(self, names: Iterable[Name], watcher: Watcher) -> None:
        """``watcher`` no longer cares for ``names``."""
        for name in names:
            watchers = self._watchers.get(name)
            if watchers is not None:
                watchers.discard(watcher)
                if not watchers:
                    del self._watchers[name]

    def notify(self, names: Iterable[Name]) -> int:
        """Tell everybody concerned; how many that were."""
        mine: dict[Watcher, list[Name]] = defaultdict(list)
        for name in names:
            for watcher in self._watchers.get(name, ()):
                mine[watcher].append(name)
        for watcher, changed in mine.items():
            watcher.changed(changed)
        return len(mine)

    @property
    def names(self) -> Container[Name]:
        """All names that somebody watches."""
        return self._watchers.keys()
