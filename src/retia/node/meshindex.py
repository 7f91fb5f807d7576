"""The lock on a mesh index: an abstract unix socket, so that two meshes on a host never share one.

The kernel frees the name when the last holder of the socket is gone: no stale lock files. The keeper holds
it for the agent's life; a restarted agent gets it back as a file descriptor. Abstract names belong to a
network namespace, and so do loopback addresses, ports and (by :func:`retia.node.cgroups.scope_name`)
cgroups and pins.
"""

from __future__ import annotations

import errno
import socket
from dataclasses import dataclass
from typing import Self

from retia.node.addresses import MAX_INDEX, check_index
from retia.node.errors import CaptureError


class IndexTaken(CaptureError):  # noqa: N818
    """Another mesh on this host holds the index; ``index`` is None where all are taken."""

    def __init__(self, index: int | None) -> None:
        if index is None:
            text = f"all {MAX_INDEX + 1} mesh indexes of this host are taken: stop a mesh first"
        else:
            text = f"mesh index {index} is taken by another mesh on this host: choose another --index"
        super().__init__(text)
        self.index = index


def lock_name(index: int) -> str:
    """The abstract socket's name, with its leading zero byte."""
    return f"\0retia-mesh-{check_index(index)}"


@dataclass(slots=True)
class MeshLock:
    """A held index. Keep it, or its descriptor, open for as long as the mesh runs."""

    index: int
    socket: socket.socket

    @classmethod
    def take(cls, wanted: int | None = None) -> Self:
        """Take index ``wanted``, or the lowest free one; :class:`IndexTaken` if there is none."""
        candidates = range(MAX_INDEX + 1) if wanted is None else (check_index(wanted),)
        for index in candidates:
            holder = _bind(index)
            if holder is not None:
                return cls(index, holder)
        raise IndexTaken(wanted)

    @classmethod
    def adopt(cls, descriptor: int) -> Self:
        """A lock from the descriptor that another process held; ValueError if it is no such socket."""
        holder = socket.socket(fileno=descriptor)
        name = holder.getsockname()
        text = name.decode() if isinstance(name, bytes) else str(name)
        prefix = "\0retia-mesh-"
        if not text.startswith(prefix):
            holder.detach()
            raise ValueError(f"descriptor {descriptor} is not a mesh lock")
        return cls(check_index(int(text[len(prefix) :])), holder)

    def fileno(self) -> int:
        """The descriptor to hand to another holder."""
        return self.socket.fileno()

    def close(self) -> None:
        """Let go; the index is free once every holder has."""
        self.socket.close()


def _bind(index: int) -> socket.socket | None:
    holder = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        holder.bind(lock_name(index))
    except OSError as error:
        holder.close()
        if error.errno == errno.EADDRINUSE:
            return None
        raise
    return holder
