"""Content that a proxy has refused, kept from all others.

A refusal names a version, which is a hash of the content, so the same bytes are withheld everywhere and other
bytes under the same name are not. Feeds then leave a proxy with the last good version it has, or with nothing
where the resource is shaped by a security object. It is a fact as well, so that whatever is translated can
read it. Only a version that is being served to the very proxy that refuses it counts; an agent can't ban what
it was not given.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import structlog

from retia.model.mesh import Proxy
from retia.model.resource import Name
from retia.policy.facts import FactBase
from retia.xds.cache import Engine

MOST = 1000
"""Versions withheld at one time; the oldest is let go first. Arbitrary."""

_log = structlog.get_logger("retia.control.quarantine")


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a version is withheld."""

    name: Name
    version: str
    error: str
    proxy: str
    objects: tuple[str, ...]
    """The objects that shaped it, ``Kind/namespace/name``."""


class Quarantine:
    """The versions withheld."""

    def __init__(self, facts: FactBase, engine: Engine, touch: Callable[[], None]) -> None:
        self._facts = facts
        self._engine = engine
        self._touch = touch
        self.refusals: dict[str, Refusal] = {}

    def refuse(self, proxy: Proxy, name: Name, version: str, error: str) -> bool:
        """``proxy`` has refused a version; false: it isn't what it is served, so nothing comes of it."""
        if version in self.refusals:
            return True
        resource = self._engine.resource(proxy, name)
        if not resource.exists or resource.version != version:
            return False
        objects = tuple(dict.fromkeys(str(p.ref) for p in resource.provenance))
        self.refusals[version] = Refusal(name, version, error, proxy.id, objects)
        _log.error("a resource is refused", resource=str(name), proxy=proxy.id, error=error, objects=objects)
        self._facts.put_quarantine(version, error)
        if len(self.refusals) > MOST:
            oldest = next(iter(self.refusals))
            del self.refusals[oldest]
            self._facts.put_quarantine(oldest, None)
        self._touch()
        return True
