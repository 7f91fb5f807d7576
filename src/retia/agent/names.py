"""The mesh's names on this host: what DNS answers from, and what the capture map is made of.

The controller sends the table once and then its changes; it is kept on disk, so that names resolve while the
controller is away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from retia.agent.rpc import Message
from retia.agent.state import State
from retia.model.ids import DNS_SUFFIX, expansions, wildcards_of

KIND = "name"
META = "names"
SETTLE_S = 2.0
"""A whole table comes in several messages; after so long they have all come."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One service: its virtual address and ports, and the addresses at which its instances may be dialled."""

    host: str
    vip: str
    ports: tuple[tuple[int, str], ...]
    """(number, protocol)"""
    endpoints: tuple[str, ...] = ()

    @classmethod
    def from_message(cls, message: Message) -> Entry:
        ports = tuple((p.number, p.protocol) for p in message.ports)
        return cls(message.host, message.vip, ports, tuple(message.endpoints))

    @classmethod
    def from_json(cls, value: Any) -> Entry:
        ports = tuple((int(n), str(p)) for n, p in value["ports"])
        return cls(value["host"], value["vip"], ports, tuple(value["endpoints"]))

    def to_json(self) -> Any:
        return {"host": self.host, "vip": self.vip, "ports": self.ports, "endpoints": self.endpoints}


class NameTable:
    """``changed`` is called after each change."""

    def __init__(self, state: State, changed: Callable[[], None] = lambda: None) -> None:
        self._state = state
        self.changed = changed
        self._entries: dict[str, Entry] = {}
        self._wildcards: dict[str, Entry] = {}
        self._stale: set[str] = set()
        self._sweep: asyncio.TimerHandle | None = None
        self.revision = 0
        self.epoch = ""

    def __len__(self) -> int:
        return len(self._entries)

    def load(self) -> None:
        """Take what an earlier run left."""
        for value in self._state.entries(KIND).values():
            self._insert(Entry.from_json(value))
        meta = self._state.entries(META).get("meta", {})
        self.revision, self.epoch = int(meta.get("revision", 0)), str(meta.get("epoch", ""))

    def apply(self, message: Message) -> None:
        """A ``Names`` message: the whole table or changes to it."""
        if message.full:
            # More messages may follow, so what seems to be gone stays until they have come.
            self._stale = set(self._entries)
            self._schedule_sweep()
        self._stale.difference_update(entry.host for entry in message.entries)
        self._remove(set(message.removed))
        for new in message.entries:
            entry = Entry.from_message(new)
            if self._entries.get(entry.host) != entry:
                self._insert(entry)
                self._state.put_entry(KIND, entry.host, entry.to_json())
        self.revision, self.epoch = message.revision, message.epoch
        self._state.put_entry(META, "meta", {"revision": self.revision, "epoch": self.epoch})
        self.changed()

    def _remove(self, hosts: set[str]) -> None:
        for host in hosts & set(self._entries):
            del self._entries[host]
            self._wildcards.pop(host, None)
            self._state.remove_entry(KIND, host)

    def _schedule_sweep(self) -> None:
        if self._sweep is not None:
            self._sweep.cancel()
        self._sweep = asyncio.get_running_loop().call_later(SETTLE_S, self.sweep)

    def sweep(self) -> None:
        """Forget what a new table did not name."""
        gone, self._stale = self._stale, set()
        if gone:
            self._remove(gone)
            self.changed()

    def refill(self) -> None:
        """Write everything anew: the file on disk was lost."""
        for entry in self._entries.values():
            self._state.put_entry(KIND, entry.host, entry.to_json())

    def entries(self) -> Iterable[Entry]:
        return self._entries.values()

    def get(self, host: str) -> Entry | None:
        """The entry of exactly that host."""
        return self._entries.get(host)

    def find(self, name: str, namespace: str) -> Entry | None:
        """The entry that ``name`` (lower case, no dot at the end) means to somebody in ``namespace``.

        ``reviews``, ``reviews.default``, ``reviews.default.svc`` and the full name are understood; then
        wildcard hosts.
        """
        for host in expansions(name, namespace):
            entry = self._entries.get(host)
            if entry is not None:
                return entry
        for wildcard in wildcards_of(name) if self._wildcards else ():
            entry = self._wildcards.get(wildcard)
            if entry is not None:
                return entry
        return None

    def owns(self, name: str) -> bool:
        """Whether a name lies in the mesh's own domain, so that nobody else need be asked."""
        return name == DNS_SUFFIX or name.endswith(f".{DNS_SUFFIX}")

    def full_host(self, name: str, namespace: str) -> str:
        """The full name of a service as a person wrote it, also where it does not exist (yet)."""
        name = name.rstrip(".").lower()
        found = self.find(name, namespace)
        if found is not None and not found.host.startswith("*"):
            return found.host
        return expansions(name, namespace)[0]

    def _insert(self, entry: Entry) -> None:
        self._entries[entry.host] = entry
        if entry.host.startswith("*."):
            self._wildcards[entry.host] = entry
