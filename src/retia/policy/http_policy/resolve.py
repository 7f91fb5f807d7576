"""HttpPolicy objects as what holds for a place: the oldest policy that has a part decides it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from retia.config.schema.http_policy import Compression, Transcoding
from retia.model.objects import ConfigObject
from retia.model.resource import Provenance
from retia.model.snapshot import View
from retia.policy.attachment import at_gateway, at_port

INDEX = "http-policies"


@dataclass(frozen=True, slots=True)
class Handling:
    """What is done at one place. The parts are as written: they have no names to resolve."""

    compression: Compression | None = None
    max_request_bytes: int = 0
    """0: no limit."""
    transcoding: Transcoding | None = None
    provenance: tuple[Provenance, ...] = ()


def port_handling(view: View, number: int) -> Handling:
    """What is done at one port of this proxy's workload."""
    return _handling(at_port(view, INDEX, number))


def gateway_handling(view: View, _key: str = "") -> Handling:
    """What is done at this gateway."""
    return _handling(at_gateway(view, INDEX))


def _handling(policies: Iterable[ConfigObject]) -> Handling:
    compression: Compression | None = None
    longest = 0
    transcoding: Transcoding | None = None
    provenance: list[Provenance] = []
    for obj in policies:
        spec = obj.spec
        if spec.compression is not None and compression is None:
            compression = spec.compression
            provenance.append(Provenance(obj.ref, "spec.compression"))
        if spec.max_request_bytes is not None and not longest:
            longest = spec.max_request_bytes
            provenance.append(Provenance(obj.ref, "spec.maxRequestBytes"))
        if spec.transcoding is not None and transcoding is None:
            transcoding = spec.transcoding
            provenance.append(Provenance(obj.ref, "spec.transcoding"))
    return Handling(compression, longest, transcoding, tuple(provenance))
