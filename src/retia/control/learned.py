"""Which names each kind of workload uses, so that a new replica has them from its start.

A kind of workload is its namespace, service account, service and version: what one replica asked for the
others will ask for as well. Names count from their last use; those unused for a week are forgotten, and at
most 200 are kept, the latest.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

import structlog

from retia.aio.clock import Clock
from retia.model.mesh import Workload
from retia.model.resource import Name, TypeUrl
from retia.sources.errors import StoreError
from retia.sources.space import Space

SPACE = "learned"
KEPT_S = 7 * 24 * 3600.0
MOST = 200
REFRESH_S = 3600.0
"""A name's last use is written down at most this often: a week is counted, not seconds."""

_log = structlog.get_logger("retia.control.learned")
_TYPES = {t.short: t for t in TypeUrl}
_LEARNABLE = (TypeUrl.VIRTUAL_HOST, TypeUrl.CLUSTER)


def key_of(workload: Workload | None) -> str:
    """The kind of workload; empty: none that learns."""
    if workload is None:
        return ""
    name = workload.service or _without_number(str(workload.id).partition("/")[2])
    return f"{workload.namespace}/{workload.service_account}/{name}/{workload.version}"


def _without_number(name: str) -> str:
    """A client has no service, but a name: ``loader-0`` is a replica of ``loader``."""
    head, dash, tail = name.rpartition("-")
    return head if dash and tail.isdigit() else name


class Learned:
    """The names in use, by kind of workload; :meth:`save` writes what changed."""

    def __init__(self, space: Space, clock: Clock) -> None:
        self._space = space
        self._clock = clock
        self._names: dict[str, dict[Name, float]] = {}
        self._unsaved: set[str] = set()
        for key, value, _ in space.items():
            self._names[key] = _parse(value)

    def names(self, key: str) -> list[Name]:
        """What such a workload is expected to use."""
        oldest = self._clock.now() - KEPT_S
        return [name for name, used in self._names.get(key, {}).items() if used >= oldest]

    def add(self, key: str, names: Iterable[Name]) -> None:
        """Such a workload has used ``names``."""
        if not key:
            return
        known = self._names.setdefault(key, {})
        now = self._clock.now()
        for name in names:
            if name.type in _LEARNABLE and now - known.get(name, 0.0) >= REFRESH_S:
                known[name] = now
                self._unsaved.add(key)
        if len(known) > MOST or key in self._unsaved:
            latest = sorted(known.items(), key=lambda item: (-item[1], str(item[0])))[:MOST]
            self._names[key] = {n: used for n, used in latest if used >= now - KEPT_S}

    def save(self) -> None:
        """Write what changed; blocks. What can't be written is tried again next time."""
        for key in list(self._unsaved):
            entries = [[n.type.short, n.name, int(used)] for n, used in self._names[key].items()]
            try:
                self._space.set(key, json.dumps(entries).encode())
            except StoreError as error:
                _log.error("learned names can't be written", reason=str(error))
                return
            self._unsaved.discard(key)


def _parse(value: bytes) -> dict[Name, float]:
    try:
        return {
            Name(_TYPES[kind], str(name)): float(used)
            for kind, name, used in json.loads(value)
            if kind in _TYPES
        }
    except (ValueError, TypeError):
        return {}
