"""The table of the mesh's names, from which agents answer DNS and fill their capture maps.

It has a revision that grows with each change and an *epoch*, new with each start of the controller: an agent
that comes back within an epoch gets what changed since, any other gets the whole table.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from retia._generated import agent_pb2 as pb
from retia.control.convert import Message
from retia.model.mesh import EndpointSet, Service
from retia.model.snapshot import FactKey, Snapshot
from retia.policy.services import UNIX, is_address

CHUNK = 1000
"""Entries in one message."""


def entry_of(service: Service, endpoints: EndpointSet | None) -> Message:
    """One service as its callers know it."""
    entry = pb.NameEntry(host=service.host, vip=service.vip)
    for port in service.ports:
        entry.ports.add(number=port.number, protocol=port.protocol)
    # Further addresses of the service itself are captured as its instances' are.
    addresses = {f"{a}:{p.number}" for a in service.networks if is_address(a) for p in service.ports}
    for each in endpoints.endpoints if endpoints is not None else ():
        if each.address and not each.address.startswith(UNIX):
            addresses.add(f"{each.address}:{each.app_port or each.port}")
    entry.endpoints.extend(sorted(addresses))
    return entry


class NameTable:
    """What the table says, and since when."""

    def __init__(self, epoch: str) -> None:
        self.epoch = epoch
        self.revision = 1
        self._entries: dict[str, tuple[int, bytes]] = {}
        self._gone: dict[str, int] = {}
        self._shared: dict[int, list[bytes]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def take(self, snapshot: Snapshot, changed: Iterable[FactKey]) -> bool:
        """Facts have changed; whether the table has."""
        hosts = {key[1] for key in changed if key[0] in ("service", "endpoints") and len(key) == 2}
        revision = self.revision + 1
        news = False
        for host in sorted(hosts):
            service = snapshot.get(("service", host))
            data = None
            if service is not None and (service.vip or host.startswith("*")):
                data = entry_of(service, snapshot.get(("endpoints", host))).SerializeToString()
            old = self._entries.get(host)
            if data is None and old is not None:
                del self._entries[host]
                self._gone[host] = revision
                news = True
            elif data is not None and (old is None or old[1] != data):
                self._entries[host] = (revision, data)
                self._gone.pop(host, None)
                news = True
        if news:
            self.revision = revision
            self._shared.clear()
        return news

    def since(self, epoch: str, revision: int) -> list[bytes]:
        """The messages (serialised ``ControllerMessage``) that bring an agent up to date; none: it is."""
        full = epoch != self.epoch or revision > self.revision or revision == 0
        known = 0 if full else revision
        if known == self.revision:
            return []
        if known not in self._shared:
            self._shared[known] = self._messages(known, full)
        return self._shared[known]

    def _messages(self, known: int, full: bool) -> list[bytes]:
        entries = [data for at, data in self._entries.values() if at > known]
        removed = [] if full else [host for host, at in self._gone.items() if at > known]
        messages: list[bytes] = []
        for start in range(0, max(len(entries), 1), CHUNK):
            names = pb.Names(revision=self.revision, full=full and start == 0, epoch=self.epoch)
            if start == 0:
                names.removed.extend(removed)
            for data in entries[start : start + CHUNK]:
                names.entries.add().MergeFromString(data)
            messages.append(pb.ControllerMessage(names=names).SerializeToString())
        return messages

    def entries(self) -> Mapping[str, Message]:
        """The table, by host."""
        return {host: pb.NameEntry.FromString(data) for host, (_, data) in self._entries.items()}
