"""What one client wants and has of one resource type: the books that :mod:`retia.xds.stream` keeps.

Names come in two kinds. A *key* is what was asked for, or what is sent without being asked; for a virtual
host it may be any spelling of a host. A *resource name* is the one canonical name that the answer bears, and
the one by which a client reports what it holds after a reconnect.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from retia.model.resource import Resource, TypeUrl
from retia.xds.messages import Response
from retia.xds.wire import ABSENT_VERSION

REMOVED = ""
"""In place of a version: the client was told that there is no such resource."""


@dataclass(slots=True)
class InFlight:
    """A response that is neither acknowledged nor refused yet; ``keys`` are the names that it answers, by
    resource name."""

    response: Response
    keys: dict[str, tuple[str, ...]]


@dataclass(slots=True)
class Batch:
    """A response in the making."""

    resources: dict[str, Resource] = field(default_factory=dict)
    keys: dict[str, tuple[str, ...]] = field(default_factory=dict)
    removed: dict[str, None] = field(default_factory=dict)
    size_bytes: int = 0

    def add(self, key: str, resource: Resource) -> None:
        name = resource.name
        if name not in self.resources:
            self.size_bytes += len(resource.wire)
        self.resources[name] = resource
        self.keys[name] = (*self.keys.get(name, ()), key)

    def has(self, name: str) -> bool:
        return name in self.resources or name in self.removed

    def __bool__(self) -> bool:
        return bool(self.resources or self.removed)


@dataclass(slots=True)
class Subscription:
    """The state of one type on one stream."""

    type: TypeUrl
    wildcard: bool = False
    fresh: bool = True
    """The client had nothing when the stream began."""
    owed: bool = False
    """The first answer to a wildcard, due even if it is empty."""
    relist: bool = False
    asked: dict[str, None] = field(default_factory=dict)
    """Live subscriptions: Envoy never asks twice and never lets go, so what was once asked for is wanted."""
    over: dict[str, None] = field(default_factory=dict)
    """Asked for beyond the limit: answered, and not remembered."""
    sent: dict[str, str] = field(default_factory=dict)
    """The version that the client has once it has read all that was sent, by resource name."""
    good: dict[str, str] = field(default_factory=dict)
    """The version that it has acknowledged last."""
    rejected: dict[str, str] = field(default_factory=dict)
    """The version that it has refused last."""
    resource_of: dict[str, str] = field(default_factory=dict)
    """The resource name behind each key where the two differ."""
    keys_of: dict[str, dict[str, None]] = field(default_factory=dict)
    dirty: dict[str, bool] = field(default_factory=dict)
    """Keys to look at; true: to be answered even where nothing has changed."""
    waiting: dict[str, bool] = field(default_factory=dict)
    """Keys of which the world knows nothing yet."""
    in_flight: dict[str, InFlight] = field(default_factory=dict)
    suspects: deque[tuple[str, ...]] = field(default_factory=deque)
    """Groups of keys to be sent on their own, to find the one that was refused."""
    deferred: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Resources refused alone while others were still to be sent, and the keys that they answer: once those
    are there, each is tried again, for what it conflicted with may be gone."""
    tried_again: dict[str, str] = field(default_factory=dict)
    """The version of a resource that had its second chance."""

    def mark(self, key: str, force: bool = False) -> None:
        """``key`` is to be looked at."""
        waited = self.waiting.pop(key, False)
        self.dirty[key] = self.dirty.get(key, False) or waited or force

    def holds(self, name: str) -> bool:
        """Whether the client has a resource with content by that name."""
        return self.sent.get(name, REMOVED) not in (REMOVED, ABSENT_VERSION)

    def link(self, key: str, name: str) -> bool:
        """Note that ``key`` is answered by ``name``; whether that is news.

        A former answer is looked at again."""
        old = self.resource_of.get(key)
        if old == name:
            return False
        if old is not None:
            self.unlink(key)
        self.resource_of[key] = name
        self.keys_of.setdefault(name, {})[key] = None
        return True

    def unlink(self, key: str) -> None:
        """``key`` is no longer answered by the resource that it was answered by."""
        old = self.resource_of.pop(key, None)
        if old is None:
            return
        keys = self.keys_of[old]
        del keys[key]
        if not keys:
            del self.keys_of[old]
        if old in self.sent and old != key:
            self.mark(old)

    def forget(self, key: str) -> None:
        """The client doesn't want ``key`` any more."""
        self.asked.pop(key, None)
        self.dirty.pop(key, None)
        self.waiting.pop(key, None)
        name = self.resource_of.get(key, key)
        self.unlink(key)
        if name not in self.asked and name not in self.keys_of and not self.wildcard:
            self.sent.pop(name, None)
            self.good.pop(name, None)
            self.rejected.pop(name, None)
            self.dirty.pop(name, None)

    def told_removed(self, name: str) -> None:
        """The client is being told that ``name`` does not exist."""
        if name in self.asked:
            self.sent[name] = REMOVED
        else:
            self.sent.pop(name, None)

    def launch(self, response: Response, keys: dict[str, tuple[str, ...]]) -> None:
        """``response`` is on its way."""
        self.in_flight[response.nonce] = InFlight(response, keys)
        for resource in response.resources:
            self.sent[resource.name] = resource.version

    def acknowledged(self, response: Response) -> None:
        for resource in response.resources:
            self.good[resource.name] = resource.version
        for name in response.removed:
            self.good.pop(name, None)

    def take_back(self, response: Response) -> None:
        """``response`` was refused: the client has what it had before."""
        for name, version in self._said(response):
            if self.sent.get(name, REMOVED) != version:
                continue
            if name in self.good:
                self.sent[name] = self.good[name]
            else:
                self.sent.pop(name, None)

    @staticmethod
    def _said(response: Response) -> Iterable[tuple[str, str]]:
        for resource in response.resources:
            yield resource.name, resource.version
        for name in response.removed:
            yield name, REMOVED
