"""What the kernel says about unix sockets."""

from __future__ import annotations

LONGEST_SOCKET_PATH = 107
"""Bytes in the path of a unix socket: ``sun_path`` holds 108 with the zero at the end (unix(7))."""
