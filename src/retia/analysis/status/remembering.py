"""A view that computes each query once: for many statuses of one snapshot."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from retia.model.mesh import Proxy
from retia.model.snapshot import PlainView, Snapshot, View

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)


class RememberingView(PlainView):
    """Kept for as long as its snapshot is asked about, and no longer: it only grows."""

    def __init__(self, snapshot: Snapshot, proxy: Proxy) -> None:
        super().__init__(snapshot, proxy)
        self._known: dict[tuple[Any, Any], Any] = {}

    def query(self, function: Callable[[View, K], T], key: K) -> T:
        """The result of ``function(view, key)``, computed the first time."""
        if (function, key) not in self._known:
            self._known[function, key] = function(self, key)
        found: T = self._known[function, key]
        return found
