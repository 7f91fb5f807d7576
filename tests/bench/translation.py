"""Translating a large mesh: everything once, and then one object changed.

The mesh has ten thousand services of one instance each, five thousand VirtualServices, and a thousand
policies (DestinationRules and PeerAuthentications, half each). "Everything" is every virtual host, cluster
and endpoint set for one sidecar, from parsed objects to bytes, with nothing remembered; in life a sidecar
asks for the few that it uses.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Iterator

from retia.config import schema
from retia.model.mesh import MeshSettings
from retia.model.objects import ConfigObject, ObjectRef
from retia.model.resource import Name, TypeUrl
from retia.model.snapshot import Snapshot
from retia.policy.facts import FactBase
from retia.translate import translate
from retia.xds.cache import Engine
from tests.bench.rows import Figure, Group, Run
from tests.bench.worlds import DEFAULT, PORT, client, service_host, workload

SERVICES, ROUTES, POLICIES = 10_000, 5_000, 1_000
CHANGES = 30
FULL_TARGET_S = 10.0
CHANGE_TARGET_MS = 50.0


def route(number: int, timeout_s: int = 1) -> ConfigObject:
    """A VirtualService with a header match, retries and a timeout."""
    host = str(service_host(number))
    target = {"destination": {"host": host}}
    spec = schema.VirtualService.model_validate(
        {
            "hosts": [host],
            "http": [
                {"match": [{"headers": {"end-user": {"exact": "jason"}}}], "route": [target]},
                {"route": [target], "timeout": f"{timeout_s}s", "retries": {"attempts": 2}},
            ],
        }
    )
    return ConfigObject(ObjectRef("VirtualService", DEFAULT, f"s{number}"), spec, created=number)


def policy(number: int) -> ConfigObject:
    """A DestinationRule or a PeerAuthentication of one service."""
    if number % 2:
        rule = {"selector": {"matchLabels": {"app": f"s{number}"}}, "mtls": {"mode": "STRICT"}}
        auth = schema.PeerAuthentication.model_validate(rule)
        return ConfigObject(ObjectRef("PeerAuthentication", DEFAULT, f"s{number}"), auth, created=number)
    limits = {"connectionPool": {"http": {"http2MaxRequests": 100}}, "outlierDetection": {"interval": "5s"}}
    spec = schema.DestinationRule.model_validate({"host": str(service_host(number)), "trafficPolicy": limits})
    return ConfigObject(ObjectRef("DestinationRule", DEFAULT, f"s{number}"), spec, created=number)


def names(services: int) -> Iterator[Name]:
    """What one sidecar can ask for."""
    for number in range(services):
        host = service_host(number)
        yield Name(TypeUrl.VIRTUAL_HOST, f"{PORT}/{host}:{PORT}")
        yield Name(TypeUrl.CLUSTER, f"outbound|{PORT}||{host}")
        yield Name(TypeUrl.ENDPOINTS, f"outbound|{PORT}||{host}")


def measure_rows(run: Run, _wanted: frozenset[str]) -> list[Figure]:
    scale = 10 if run.quick else 1
    services, routes, policies = SERVICES // scale, ROUTES // scale, POLICIES // scale
    objects = [route(n) for n in range(routes)] + [policy(n) for n in range(policies)]
    workloads = [workload(s, 0, s) for s in range(services)]
    # As the controller sets its own.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
    begin = time.process_time()
    facts = FactBase(MeshSettings())
    facts.put_workloads(workloads)
    facts.put_objects(objects)
    hosts = facts.hosts_without_vip()
    facts.put_vips({h: f"240.240.{n >> 8}.{n & 255}" for n, h in enumerate(hosts, 1)})
    snapshot, _ = Snapshot().with_changes(facts.take_changes())
    engine = Engine(snapshot, translate.build, translate.listed)
    derived_s = time.process_time() - begin
    proxy = client()
    size = sum(len(engine.resource(proxy, name).wire) for name in names(services))
    full_s = time.process_time() - begin
    found = {"services": services, "routes": routes, "policies": policies, "bytes": size}
    changes = _changes(facts, engine, 5 if run.quick else CHANGES)
    return [
        Figure(
            "translation",
            f"everything of {services:,} services, {routes:,} routes and {policies:,} policies, CPU",
            round(full_s, 2),
            "s",
            FULL_TARGET_S,
            {**found, "facts_s": round(derived_s, 2)},
        ),
        *changes,
    ]


def _changes(facts: FactBase, engine: Engine, count: int) -> list[Figure]:
    """CPU from an object, or an instance, put to the new bytes of all that it touches."""
    by_kind: dict[str, list[float]] = {"a VirtualService changed": [], "an instance came": []}
    proxy = client()
    snapshot = engine.snapshot
    for number in range(count):
        for what, spent in by_kind.items():
            begin = time.process_time()
            if what == "an instance came":
                facts.put_workloads([workload(number, 1, 60_000 + number)])
            else:
                facts.put_objects([route(number, 2 + number)])
            facts.hosts_without_vip()
            snapshot, changed = snapshot.with_changes(facts.take_changes())
            affected = engine.update(snapshot, changed)
            for name in affected:
                engine.resource(proxy, name)
            spent.append((time.process_time() - begin) * 1e3)
    return [
        Figure(
            "translation",
            f"{what}, CPU, p50",
            round(statistics.median(spent), 2),
            "ms",
            CHANGE_TARGET_MS,
            {"max_ms": round(max(spent), 2), "changes": len(spent)},
        )
        for what, spent in by_kind.items()
    ]


GROUP = Group(
    {
        "translation": "10,000 services, 5,000 VirtualServices and 1,000 policies, from parsed objects to "
        "the bytes of every virtual host, cluster and endpoint set for one sidecar, in one process; then one "
        "object changed at a time, to the new bytes of all that it touches"
    },
    measure_rows,
)
