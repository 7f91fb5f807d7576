"""What ``retia up`` is told about controller and agent."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PlatformSettings:
    envoy: str = ""
    """The user's own Envoy; empty: the packaged one."""
    advertise_address: str = ""
    """This host's address for the mesh's other hosts; empty: the mesh stays on this host."""
    capture: str = ""
    """For workloads that choose none; empty: the agent decides."""
