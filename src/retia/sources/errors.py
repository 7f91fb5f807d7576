"""What can go wrong with a store. Every message says what, where and the next step."""

from __future__ import annotations

from retia.model.objects import ObjectRef


class StoreError(Exception):
    """Reading or writing the store failed; nothing was half written."""


class Conflict(StoreError):  # noqa: N818
    """An object or record is not at the revision that the writer saw. Read again and repeat."""

    def __init__(self, what: ObjectRef | str, expected: int, actual: int) -> None:
        self.what = what
        self.expected = expected
        self.actual = actual
        super().__init__(f"{what}: {_version(actual)}, but the change was made for {_version(expected)}")


class Compacted(StoreError):  # noqa: N818
    """Deletions after that revision are no longer known: list everything again."""


class ReadOnly(StoreError):  # noqa: N818
    """The store is a directory of files; change the files."""


class StoreFull(StoreError):  # noqa: N818
    """No space left; the last state stays in force and readable."""


class StoreBusy(StoreError):  # noqa: N818
    """Another process holds the store."""


class StoreDamaged(StoreError):  # noqa: N818
    """The file fails its check; it is left as it is."""


class StoreTooNew(StoreError):  # noqa: N818
    """The file was written by a newer Retia."""


class Exhausted(StoreError):  # noqa: N818
    """Every virtual address is in use."""


def _version(revision: int) -> str:
    return f"it is at revision {revision}" if revision else "it does not exist"
