"""OverloadPolicy objects as what holds for a place: the oldest policy that has a part decides it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from retia.config.schema import overload_policy as schema
from retia.model.objects import ConfigObject
from retia.model.resource import Provenance
from retia.model.snapshot import View
from retia.policy.attachment import at_gateway, at_port
from retia.policy.overload.forms import Adaptive, Admission, Critical, Overload, Shedding
from retia.policy.ratelimit.forms import Test
from retia.policy.ratelimit.resolve import PATHS, VALUES

INDEX = "overload"


def port_overload(view: View, number: int) -> Overload:
    """What holds for one port of this proxy's workload."""
    return _overload(at_port(view, INDEX, number))


def gateway_overload(view: View, _key: str = "") -> Overload:
    """What holds for all requests at this gateway."""
    return _overload(at_gateway(view, INDEX))


def _overload(policies: Iterable[ConfigObject]) -> Overload:
    found: dict[str, Any] = {}
    provenance: list[Provenance] = []
    for obj in policies:
        for part, field, convert in _PARTS:
            given = getattr(obj.spec, part)
            if given is not None and part not in found:
                found[part] = convert(given)
                provenance.append(Provenance(obj.ref, f"spec.{field}"))
    return Overload(
        adaptive=found.get("adaptive_concurrency"),
        admission=found.get("admission_control"),
        shedding=found.get("priority"),
        provenance=tuple(provenance),
    )


def _adaptive(given: schema.AdaptiveConcurrency) -> Adaptive:
    return Adaptive(
        least=given.min_concurrency,
        most=given.max_concurrency,
        update_s=given.update_interval,
        measure_s=given.measure_interval,
        percentile=given.percentile,
        buffer_percent=given.buffer_percent,
    )


def _admission(given: schema.AdmissionControl) -> Admission:
    return Admission(
        success_percent=given.success_percent,
        window_s=given.sampling_window,
        min_rps=given.min_requests_per_second,
        max_refused_percent=given.max_refused_percent,
    )


def _shedding(given: schema.Priority) -> Shedding:
    return Shedding(
        tuple(_critical(each) for each in given.critical),
        given.max_concurrency,
        given.critical_max_concurrency or 0,
    )


def _critical(match: schema.CriticalMatch) -> Critical:
    path = match.path
    return Critical(
        method=match.method,
        path=Test(PATHS[path.type], path.value) if path is not None else None,
        headers=tuple((h.name.lower(), Test(VALUES[h.type], h.value)) for h in match.headers),
    )


_PARTS = (
    ("adaptive_concurrency", "adaptiveConcurrency", _adaptive),
    ("admission_control", "admissionControl", _admission),
    ("priority", "priority", _shedding),
)
