"""Reading log files: the last lines, and what is added while one watches.

Programs write to their files themselves, so that nothing is lost, and nobody is stopped by a full pipe, when
the supervisor goes. A file that became shorter was emptied because it had grown too large: reading goes on
from its beginning.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

COLOURS = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94)
"""ANSI foreground colours, given out in turn."""

_READ_BYTES = 1 << 16

LIMIT_BYTES = 20_000_000
"""Arbitrary: days of an ordinary program's output, and no threat to a disk."""


def last_lines(path: Path, count: int) -> list[str]:
    """At most ``count`` lines from the end of a file; none where there is no such file."""
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            position, data = file.tell(), b""
            while position > 0 and data.count(b"\n") <= count:
                step = min(_READ_BYTES, position)
                position -= step
                file.seek(position)
                data = file.read(step) + data
    except OSError:
        return []
    return data.decode("utf-8", "replace").splitlines()[-count:] if count else []


class Tail:
    """Follows one file; :meth:`read` gives the whole lines added since the last call."""

    def __init__(self, path: Path, from_start: bool = False) -> None:
        self.path = path
        self._rest = b""
        self._position = 0 if from_start else self._size()

    def read(self) -> Iterator[str]:
        size = self._size()
        if size < self._position:
            self._position, self._rest = 0, b""
        if size == self._position:
            return
        try:
            with self.path.open("rb") as file:
                file.seek(self._position)
                data = file.read(size - self._position)
        except OSError:
            return
        self._position += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            yield line.decode("utf-8", "replace").rstrip("\r")

    def _size(self) -> int:
        try:
            return self.path.stat().st_size
        except OSError:
            return 0


def shorten(folder: Path, limit_bytes: int = LIMIT_BYTES) -> None:
    """Empties what has grown too large below ``folder``, keeping one older generation beside it.

    Only files that are open for appending: their writers then go on at the beginning. Lines written between
    copying and emptying are lost.
    """
    names = ("controller.log", "agent.log", "up.log")
    for path in (*(folder / name for name in names), *folder.glob("workloads/*.log")):
        with contextlib.suppress(OSError):
            if path.stat().st_size > limit_bytes:
                shutil.copyfile(path, path.with_suffix(".log.1"))
                os.truncate(path, 0)


def prefixed(name: str, line: str, width: int, colour: int = 0) -> str:
    """``name | line``, the name coloured where ``colour`` is given."""
    head = f"{name.ljust(width)} |"
    return f"\x1b[{colour}m{head}\x1b[0m {line}" if colour else f"{head} {line}"
