"""The annotations of a workload that mean something to the mesh.

They are given by ``retia run --annotation`` and by ``annotations`` in the mesh file; others are kept and have
no effect.
"""

from __future__ import annotations

INBOUND = "retia.dev/inbound"
"""``http``: its proxy reads HTTP on the way in. Anything else, or absent: it passes bytes."""

OPEN_PORTS = "retia.dev/open-ports"
"""Ports, with commas, at which everybody may reach the program itself, past its proxy; absent: none."""

FAIL_OPEN = "retia.dev/fail-open"
"""``true``: while its proxy is away, its connections go where they were going. Absent: they are refused."""

PURPOSE = "retia.dev/purpose"
"""Why Retia itself joined the mesh here: ``forward`` or ``publish``; absent: it is a user's workload."""
