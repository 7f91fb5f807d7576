"""``PeerAuthentication``: whether callers must use mutual TLS. security.istio.io."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum

from retia.config.codes import Code
from retia.config.schema.base import FrozenMap, Model, Problem
from retia.config.schema.selector import WorkloadSelector
from retia.config.schema.types import PortKey
from retia.model.mesh import Mode


class MutualTLSMode(StrEnum):
    UNSET = "UNSET"
    """The mode of the next wider policy: namespace, mesh, then PERMISSIVE."""
    DISABLE = "DISABLE"
    PERMISSIVE = "PERMISSIVE"
    STRICT = "STRICT"


class MutualTLS(Model):
    mode: MutualTLSMode = MutualTLSMode.UNSET

    @property
    def resolved(self) -> Mode | None:
        """``None``: left to the next wider policy."""
        return None if self.mode is MutualTLSMode.UNSET else Mode(self.mode.value.lower())


class PeerAuthentication(Model):
    """For the mesh (in the root namespace, no selector), a namespace (no selector) or some workloads."""

    selector: WorkloadSelector | None = None
    mtls: MutualTLS | None = None
    """Absent: UNSET."""
    port_level_mtls: FrozenMap[PortKey, MutualTLS] | None = None
    """By the port that the application listens on."""

    def problems(self) -> Iterator[Problem]:
        if self.port_level_mtls is None:
            return
        if not self.port_level_mtls:
            yield Problem(("portLevelMtls",), "must have at least one port", Code.MISSING_FIELD)
        elif not self.labels:
            message = "needs a selector with labels: a policy for a namespace or the mesh has no ports"
            yield Problem(("portLevelMtls",), message)

    @property
    def labels(self) -> tuple[tuple[str, str], ...]:
        """The selector's labels; none: the whole namespace."""
        return self.selector.match_labels if self.selector else ()

    @property
    def mode(self) -> Mode | None:
        """``None``: left to the next wider policy."""
        return self.mtls.resolved if self.mtls else None

    def port_mode(self, port: int) -> Mode | None:
        """The mode of one port of the application; ``None``: that of the policy."""
        return next((each.resolved for number, each in self.port_level_mtls or () if number == port), None)
