"""What crosses a delta xDS stream, as plain values: see :mod:`retia.xds.wire` for their bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from retia.model.resource import Resource, TypeUrl

NO_VERSIONS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Request:
    """One ``DeltaDiscoveryRequest``: a subscription, an ACK, a NACK, or several of these at once."""

    type: TypeUrl | None
    """``None``: a type that isn't served here; such a request is ignored."""
    subscribe: tuple[str, ...] = ()
    unsubscribe: tuple[str, ...] = ()
    initial_versions: Mapping[str, str] = field(default_factory=lambda: NO_VERSIONS)
    """What the client holds from an earlier stream, by *resource* name; only in a type's first request."""
    nonce: str = ""
    """The response that is acknowledged or refused; empty: neither."""
    error: str = ""
    """Why the response is refused; empty: it is acknowledged."""
    node_id: str = ""
    type_url: str = ""
    """As sent, also where ``type`` is ``None``."""


@dataclass(frozen=True, slots=True)
class Response:
    """One ``DeltaDiscoveryResponse``. No name occurs twice in it."""

    type: TypeUrl
    resources: tuple[Resource, ...]
    removed: tuple[str, ...]
    nonce: str

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(r.name for r in self.resources)
