"""One space of records as a small key-value store, for parts that should not know the whole store."""

from __future__ import annotations

from collections.abc import Iterator

from retia.sources.errors import Conflict
from retia.sources.store import PutRecord, Records


class Space:
    """The records of ``space``, by key."""

    def __init__(self, records: Records, space: str) -> None:
        self._records = records
        self._space = space

    def read(self, key: str) -> tuple[bytes, int] | None:
        """Value and revision, or ``None``."""
        record = self._records.record(self._space, key)
        return None if record is None else (record.value, record.revision)

    def items(self) -> Iterator[tuple[str, bytes, int]]:
        """Key, value and revision of all records, sorted by key."""
        return ((r.key, r.value, r.revision) for r in self._records.records(self._space))

    def set(self, key: str, value: bytes | None) -> None:
        """Writes the record, whatever was there; ``None`` removes it."""
        self._records.write_records([PutRecord(self._space, key, value)])

    def compare_and_set(self, key: str, value: bytes | None, expected: int) -> bool:
        """Writes (``None``: removes) if the record is at revision ``expected`` (0: absent); whether it
        was."""
        try:
            self._records.write_records([PutRecord(self._space, key, value, expected)])
        except Conflict:
            return False
        return True
