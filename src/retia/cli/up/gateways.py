"""Gateways as the agent launches them: workloads whose proxy is all there is.

What a gateway is and where it listens is told by labels and annotations. A process must stand behind every
workload, since its end is the workload's; a gateway's does nothing.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from retia.api.local import PortSpec
from retia.model import annotation

COMMAND = ("sleep", "infinity")
USUAL_PORTS: Mapping[int, str] = {80: "http", 443: "tls"}
"""Those that every gateway has as a service of the mesh, with what they speak."""
UNPRIVILEGED: Mapping[int, int] = {80: 8080, 443: 8443}
"""Where they are bound without the right to bind ports below 1024."""
_FIRST_FREE = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")


@dataclass(frozen=True, slots=True)
class Edge:
    """What distinguishes a gateway from a program."""

    ports: tuple[PortSpec, ...]
    labels: dict[str, str]
    annotations: dict[str, str]


def may_bind_low_ports() -> bool:
    """Whether this user may bind ports below 1024 (as far as can be told without trying)."""
    if os.geteuid() == 0:
        return True
    try:
        return int(_FIRST_FREE.read_text(encoding="ascii")) <= min(USUAL_PORTS)
    except (OSError, ValueError):
        return False


def describe(
    name: str,
    *,
    ports: Mapping[int, int],
    address: str,
    labels: Mapping[str, str],
    annotations: Mapping[str, str],
    trusted_proxies: int,
    http3: bool,
    privileged: bool,
) -> Edge:
    """A gateway of that name; ``ports`` are those bound elsewhere, or to be known as the service's own."""
    bound = {**({} if privileged else UNPRIVILEGED), **ports}
    numbers = sorted({*USUAL_PORTS, *ports})
    said = {annotation.GATEWAY: name, annotation.GATEWAY_BIND: address, **annotations}
    moved = [f"{port}:{to}" for port, to in sorted(bound.items()) if port != to]
    if moved:
        said[annotation.GATEWAY_PORTS] = ",".join(moved)
    if http3:
        said[annotation.HTTP3] = "true"
    if trusted_proxies:
        said[annotation.TRUSTED_PROXIES] = str(trusted_proxies)
    return Edge(
        ports=tuple(
            PortSpec(number=n, app_port=bound.get(n, n), protocol=USUAL_PORTS.get(n, "auto"))  # type: ignore[arg-type]
            for n in numbers
        ),
        labels={**_own_labels(name), **labels},
        annotations=said,
    )


def _own_labels(name: str) -> dict[str, str]:
    """As those of Istio's own installations and of Gateway API's deployments."""
    role = "egressgateway" if "egress" in name else "ingressgateway"
    return {"app": f"istio-{role}", "istio": role, "gateway.networking.k8s.io/gateway-name": name}


def listening(name: str, edge_ports: tuple[PortSpec, ...], address: str) -> str:
    """One line for people: where the gateway listens."""
    parts = [
        f"port {port.number} at {address}:{port.app_port}"
        if port.app_port != port.number
        else f"port {port.number}"
        for port in edge_ports
    ]
    return f"gateway {name} listens on {address} as Gateway objects say: {', '.join(parts)}"
