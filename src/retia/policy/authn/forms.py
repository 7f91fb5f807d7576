"""The middle form of PeerAuthentication."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from retia.model.mesh import Labels
from retia.model.objects import ObjectRef
from retia.model.resource import Provenance


class Inbound(StrEnum):
    """What an inbound port does with callers."""

    STRICT = "strict"
    PERMISSIVE = "permissive"
    DISABLE = "disable"
    REFUSE = "refuse"
    """Nobody gets in: a security object selects the port and can't be translated."""


@dataclass(frozen=True, slots=True)
class PortMode:
    """The mode of one port and the objects that decided it."""

    mode: Inbound = Inbound.PERMISSIVE
    provenance: tuple[Provenance, ...] = ()


@dataclass(frozen=True, slots=True)
class Policy:
    """One PeerAuthentication; ``None`` as a mode: inherits (``UNSET``)."""

    ref: ObjectRef
    selector: Labels = ()
    mode: Inbound | None = None
    ports: tuple[tuple[int, Inbound | None], ...] = ()
