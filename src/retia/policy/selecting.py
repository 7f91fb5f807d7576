"""Who is selected by whom, without asking everybody.

A selector of labels can only match what has its first pair; so selectors, and what they select, are found by
pair, and a change asks the few that share one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

from retia.model.ids import Namespace
from retia.model.mesh import Labels, labels_match

T = TypeVar("T", bound=Hashable)
Pair = tuple[str, str]


class Selectors(Generic[T]):
    """Selectors by what they belong to, in one namespace each. An empty selector selects nothing."""

    def __init__(self) -> None:
        self._by_pair: dict[tuple[Namespace, Pair], dict[T, Labels]] = defaultdict(dict)
        self._of: dict[T, tuple[Namespace, Pair]] = {}

    def put(self, owner: T, namespace: Namespace, selector: Labels) -> None:
        self.remove(owner)
        if selector:
            self._of[owner] = (namespace, selector[0])
            self._by_pair[namespace, selector[0]][owner] = selector

    def remove(self, owner: T) -> None:
        place = self._of.pop(owner, None)
        if place is not None:
            del self._by_pair[place][owner]
            if not self._by_pair[place]:
                del self._by_pair[place]

    def matching(self, namespace: Namespace, labels: Labels) -> Iterator[T]:
        """The owners whose selectors select something with these labels."""
        for pair in labels:
            for owner, selector in self._by_pair.get((namespace, pair), {}).items():
                if labels_match(selector, labels):
                    yield owner


class Labelled(Generic[T]):
    """Things with labels in namespaces."""

    def __init__(self) -> None:
        self._by_pair: dict[tuple[Namespace, Pair], set[T]] = defaultdict(set)
        self._of: dict[T, tuple[Namespace, Labels]] = {}

    def put(self, item: T, namespace: Namespace, labels: Labels) -> None:
        self.remove(item)
        self._of[item] = (namespace, labels)
        for pair in labels:
            self._by_pair[namespace, pair].add(item)

    def remove(self, item: T) -> None:
        namespace, labels = self._of.pop(item, (Namespace(""), ()))
        for pair in labels:
            members = self._by_pair[namespace, pair]
            members.discard(item)
            if not members:
                del self._by_pair[namespace, pair]

    def selected(self, namespace: Namespace, selector: Labels) -> list[T]:
        """The things that a selector selects; an empty one selects nothing. In no order."""
        if not selector:
            return []
        found = [self._by_pair.get((namespace, pair), set()) for pair in selector]
        return list(min(found, key=len).intersection(*found))
