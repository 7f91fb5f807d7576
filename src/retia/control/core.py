"""The mesh as the controller holds it in memory, without its servers: what sessions and the API work on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from retia.aio.clock import Clock
from retia.control.hub import Hub
from retia.control.learned import Learned
from retia.control.name_table import NameTable
from retia.control.pipeline import Pipeline
from retia.control.quarantine import Quarantine
from retia.control.registry import Registry
from retia.control.settings import Settings
from retia.control.standby import ChangeLog

if TYPE_CHECKING:
    from retia.control.patches import Patches
    from retia.control.session import AgentSession


@dataclass(slots=True)
class Core:
    """The parts, put together by :mod:`retia.control.main`."""

    settings: Settings
    clock: Clock
    hub: Hub
    pipeline: Pipeline
    registry: Registry
    names: NameTable
    changes: ChangeLog
    learned: Learned
    quarantine: Quarantine
    trust_domain: str
    bundle_pem: bytes
    patches: Patches = field(init=False)
    sessions: dict[str, AgentSession] = field(default_factory=dict)
    """By host id."""
