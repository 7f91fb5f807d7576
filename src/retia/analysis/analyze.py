"""All checks over all objects."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from retia.analysis import (
    annotated,
    conflicts,
    gateways,
    mtls,
    policies,
    protocols,
    reach,
    references,
    selectors,
    shares,
    versions,
)
from retia.analysis.status import check as status
from retia.analysis.world import World
from retia.model.finding import Finding
from retia.model.ids import DNS_SUFFIX
from retia.model.mesh import EndpointSet, Service, Workload
from retia.model.objects import ConfigObject

Check = Callable[[World], Iterator[Finding]]
_CHECKS: tuple[Check, ...] = (
    references.check,
    conflicts.check,
    protocols.check,
    reach.check,
    mtls.check,
    policies.check,
    status.check,
    versions.check,
    gateways.check,
    selectors.check,
    shares.check,
    annotated.check,
)


def analyze(
    objects: Iterable[ConfigObject],
    services: Iterable[Service],
    endpoints: Iterable[EndpointSet] | None = None,
    workloads: Iterable[Workload] | None = None,
    suffix: str = DNS_SUFFIX,
    *,
    complete: bool = True,
) -> tuple[Finding, ...]:
    """What is wrong between the objects, sorted, in any order of input the same.

    ``services`` are all hosts that exist: made by agents, ``Service`` and ``ServiceEntry``. Without
    ``endpoints`` or ``workloads`` the checks that need them (empty subsets and selectors, ambiguous
    addresses) are left out, as is right for a directory of documents with no mesh running. Not ``complete``:
    there may be other services of the mesh, so that a name under ``suffix`` is not said to mean nothing.
    """
    world = World.of(objects, services, endpoints, workloads, suffix, complete=complete)
    found = {each for check in _CHECKS for each in check(world)}
    return tuple(sorted(found, key=_order))


def _order(each: Finding) -> tuple[str, str, str, str]:
    return (str(each.ref or ""), each.field, each.code, each.message)
