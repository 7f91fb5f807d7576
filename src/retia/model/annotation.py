"""The annotations of a workload that mean something to the mesh.

They are given by ``retia run --annotation`` and by ``annotations`` in the mesh file; others are kept and have
no effect.
"""

from __future__ import annotations

INBOUND = "retia.dev/inbound"
"""``http``: its proxy reads HTTP on the way in. Anything else, or absent: it passes bytes."""

OPEN_PORTS = "retia.dev/open-ports"
"""Ports, with commas, at which everybody may reach the program itself, past its proxy; absent: none."""

EXCLUDE_INBOUND = "traffic.sidecar.istio.io/excludeInboundPorts"
"""Istio's name for :data:`OPEN_PORTS`; ports of both are open."""

FAIL_OPEN = "retia.dev/fail-open"
"""``true``: while its proxy is away, its connections go where they were going. Absent: they are refused."""

BYPASS = "retia.dev/bypass"
"""``forbidden``: ``retia bypass`` is refused for it. Absent: allowed."""

GROUP = "retia.dev/workload-group"
"""The WorkloadGroup of its namespace that it belongs to; absent: none."""

PURPOSE = "retia.dev/purpose"
"""Why Retia itself joined the mesh here: ``forward`` or ``publish``; absent: it is a user's workload."""

GATEWAY = "retia.dev/gateway"
"""The name of the gateway that this workload is: its proxy has no application, and listens as ``Gateway``
objects say; absent: an ordinary workload."""

GATEWAY_BIND = "retia.dev/gateway-bind"
"""The address that a gateway listens on; absent: every IPv4 address of its host."""

GATEWAY_PORTS = "retia.dev/gateway-ports"
"""``80:8080,443:8443``: ports of ``Gateway`` objects and where they are bound; absent: as they are."""

HTTP3 = "retia.dev/http3"
"""``true``: a gateway speaks HTTP/3 as well wherever it ends HTTPS (``SIMPLE``), on the UDP port of the same
number, and says so by ``alt-svc``; absent: it doesn't."""

TRUSTED_PROXIES = "retia.dev/trusted-proxies"
"""How many proxies before a gateway are trusted to say the client's address in ``x-forwarded-for``
(``numTrustedProxies``); absent: 0, the connection's own address counts."""
