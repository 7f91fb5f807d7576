"""Listening sockets, with errors that say what to do."""

from __future__ import annotations

import errno
import os
import socket
import stat
from pathlib import Path

BACKLOG = 1024


class PortError(Exception):
    """A socket can't be had; one sentence."""


def tcp(address: str, port: int, what: str) -> socket.socket:
    """A bound TCP socket. Raises :class:`PortError`."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, port))
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise PortError(
                f"{what}: {address}:{port} is in use by another program; stop it, or choose another --index"
            ) from error
        raise PortError(f"{what}: {address}:{port}: {error.strerror}") from error
    sock.setblocking(False)
    return sock


def unix(path: Path, what: str) -> socket.socket:
    """A bound unix socket that only its owner may open. One that a dead process left is replaced; raises
    :class:`PortError` if somebody answers on it."""
    if path.exists():
        if not stat.S_ISSOCK(path.stat().st_mode):
            raise PortError(f"{what}: {path} exists and is no socket; remove it")
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(1.0)
            if probe.connect_ex(str(path)) == 0:
                raise PortError(f"{what}: another controller serves {path}; stop it first")
        path.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX)
    before = os.umask(0o177)
    try:
        sock.bind(str(path))
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise PortError(f"{what}: {path}: {error.strerror}") from error
    finally:
        os.umask(before)
    sock.setblocking(False)
    return sock
