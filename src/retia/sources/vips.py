"""Virtual addresses of services: stable for each host name, from 240.240.0.0/16.

That block is reserved (RFC 1112, class E), routed nowhere and chosen by Istio as well, so no real host is
hidden by it. Addresses are given in order, and one whose service is gone is not given to another name until
all were given once: a client that cached an old answer gets an error, not a stranger. A name that comes back
gets its old address as long as nobody else took it.
"""

from __future__ import annotations

import ipaddress
import json
import threading
from collections.abc import Iterable, Mapping
from typing import Final

from retia.model.ids import Host
from retia.sources.errors import Conflict, Exhausted, StoreBusy
from retia.sources.store import ABSENT, PutRecord, Record, Records

SPACE: Final = "vips"
NETWORK: Final = ipaddress.IPv4Network("240.240.0.0/16")
_CURSOR: Final = "#cursor"
"""No host name begins so."""
_ATTEMPTS: Final = 8


class Vips:
    """Hands out addresses and keeps them in ``records``. Safe to call from several threads."""

    def __init__(self, records: Records, network: ipaddress.IPv4Network = NETWORK) -> None:
        self._records = records
        self._first = int(network.network_address) + 1
        self._size = network.num_addresses - 2
        self._lock = threading.Lock()
        self._known: dict[str, tuple[str, int, int]] = {}
        self._load()

    def addresses(self) -> Mapping[Host, str]:
        """The names in use and their addresses."""
        with self._lock:
            return {Host(h): a for h, (a, released, _) in self._known.items() if not released}

    def allocate(self, hosts: Iterable[Host]) -> Mapping[Host, str]:
        """The addresses of ``hosts``; those that had none get one, in the order of their names, in one write.

        Raises :class:`~retia.sources.errors.Exhausted` when all addresses are in use (nothing is then
        written), or another ``StoreError``.
        """
        wanted = sorted(set(hosts))
        with self._lock:
            for _ in range(_ATTEMPTS):
                try:
                    self._allocate(wanted)
                    break
                except Conflict:  # another controller was quicker
                    self._load()
            else:
                raise StoreBusy("the virtual addresses are being changed by others all the time; try again")
            return {h: self._known[h][0] for h in wanted}

    def release(self, hosts: Iterable[Host]) -> None:
        """Notes that names are gone; unknown ones are ignored. Their addresses stay theirs until needed."""
        with self._lock:
            changes: list[PutRecord] = []
            for host in sorted(set(hosts)):
                address, released, revision = self._known.get(host, ("", 1, 0))
                if not released:
                    changes.append(_put(host, address, self._releases + 1 + len(changes), revision))
            self._write(changes)

    def _allocate(self, wanted: list[Host]) -> None:
        changes: list[PutRecord] = []
        taken = {address: host for host, (address, _, _) in self._known.items()}
        free = sorted((at, host) for host, (_, at, _) in self._known.items() if at and host not in wanted)
        cursor = self._cursor
        for host in wanted:
            known = self._known.get(host)
            if known is not None:
                if known[1]:
                    changes.append(_put(host, known[0], 0, known[2]))
                continue
            while cursor < self._size and self._address(cursor) in taken:
                cursor += 1
            if cursor < self._size:
                address = self._address(cursor)
                cursor += 1
            elif free:
                old = free.pop(0)[1]
                address, _, revision = self._known[old]
                changes.append(PutRecord(SPACE, old, None, revision))
            else:
                raise Exhausted(f"all {self._size} virtual addresses are in use; {host} gets none")
            changes.append(_put(host, address, 0, ABSENT))
        if changes:
            changes.append(PutRecord(SPACE, _CURSOR, json.dumps(cursor).encode(), self._cursor_revision))
        self._write(changes)

    def _address(self, position: int) -> str:
        return str(ipaddress.IPv4Address(self._first + position))

    def _write(self, changes: list[PutRecord]) -> None:
        if not changes:
            return
        revision = self._records.write_records(changes)
        for change in changes:
            if change.value is None:
                self._known.pop(change.key, None)
            else:
                self._remember(Record(change.key, change.value, revision))

    def _load(self) -> None:
        self._known = {}
        self._cursor = 0
        self._cursor_revision = ABSENT
        self._releases = 0
        for record in self._records.records(SPACE):
            self._remember(record)

    def _remember(self, record: Record) -> None:
        value = json.loads(record.value)
        if record.key == _CURSOR:
            self._cursor, self._cursor_revision = int(value), record.revision
            return
        released = int(value.get("released", 0))
        self._known[record.key] = (str(value["address"]), released, record.revision)
        self._releases = max(self._releases, released)


def _put(host: str, address: str, released: int, expected: int) -> PutRecord:
    value: dict[str, str | int] = {"address": address}
    if released:
        value["released"] = released
    return PutRecord(SPACE, host, json.dumps(value).encode(), expected)
