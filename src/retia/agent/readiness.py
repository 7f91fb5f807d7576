"""Which listeners a proxy must have before its program is let in: its first connection must not be refused.

A proxy says that it is up as soon as its first answer is dealt with, whatever was in it: an answer that it
refused, or one that didn't come in time, leaves it up without listeners.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from retia.agent.proxies import RunningProxy
from retia.agent.records import Record
from retia.model.resource import Name, TypeUrl
from retia.translate.names import (
    EXPLICIT,
    INBOUND,
    OUTBOUND_AUTO,
    OUTBOUND_HTTP,
    OUTBOUND_TCP,
    parse_dialled_listener,
    upstream_listener,
)

REMEDY_S = 1.0
"""How long a listener is waited for that was refused by the proxy or withheld by the controller (another form
of it mostly follows at once), or that only some object asks for. Arbitrary."""


def expected_listeners(record: Record) -> frozenset[str]:
    """The listeners that every proxy of such a workload has; of a gateway that is for its objects to say.
    Only a workload with ports is called by others."""
    if record.gateway:
        return frozenset()
    inbound = (INBOUND,) if record.ports else ()
    outbound = (OUTBOUND_HTTP, OUTBOUND_AUTO, OUTBOUND_TCP) if record.capture == "ebpf" else (EXPLICIT,)
    upstreams = (upstream_listener(upstream.local_port) for upstream in record.upstreams)
    return frozenset((*inbound, *outbound, *upstreams))


class Awaited:
    """The listeners that a proxy is still to open, as is known at the time of each call: those that it must
    have, and those that it has been given besides. The latter, and what it can't have (a patch removes it,
    its port is taken), are waited for no longer than :data:`REMEDY_S`, so that all else works.
    """

    def __init__(
        self, record: Record, running: RunningProxy, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._expected = expected_listeners(record)
        self._running = running
        self._clock = clock
        self._patient_since: float | None = None

    def __call__(self) -> frozenset[str]:
        """The names."""
        given = self._running.world.listed(TypeUrl.LISTENER) or ()
        names = self._expected.union(n for n in given if parse_dialled_listener(n) is None)
        due = frozenset(name for name in self._expected if self._is_due(Name(TypeUrl.LISTENER, name)))
        if names == due:
            self._patient_since = None
            return due
        if self._patient_since is None:
            self._patient_since = self._clock()
        return due if self._clock() - self._patient_since >= REMEDY_S else names

    def _is_due(self, name: Name) -> bool:
        """Whether the proxy has it or is yet to have it."""
        found = self._running.world.get(name)
        xds = self._running.xds
        return found is None or (found.exists and (name not in xds.nacked or name in xds.acked))
