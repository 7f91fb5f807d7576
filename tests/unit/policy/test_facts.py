"""From objects and workloads to the facts and indexes that translation reads."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from retia.config.schema.destination_rule import DestinationRule
from retia.config.schema.peer_authentication import PeerAuthentication
from retia.config.schema.service import Service as ServiceSpec
from retia.config.schema.service_entry import ServiceEntry
from retia.config.schema.virtual_service import VirtualService
from retia.config.schema.workload_entry import WorkloadEntry
from retia.model.ids import Host, HostId, Namespace, WorkloadId
from retia.model.mesh import MeshSettings, Protocol, Resolution, Wire, Workload, WorkloadPort, labels_of
from retia.model.objects import ConfigObject, ObjectRef
from retia.policy.facts import FactBase

KINDS = {
    model.__name__: model
    for model in (VirtualService, DestinationRule, ServiceEntry, WorkloadEntry, PeerAuthentication)
} | {"Service": ServiceSpec}
REVIEWS = Host("reviews.default.svc.cluster.local")


def obj(
    kind: str, name: str, spec: dict[str, Any], namespace: str = "default", created: int = 0
) -> ConfigObject:
    ref = ObjectRef(kind, Namespace(namespace), name)
    return ConfigObject(ref, KINDS[kind].model_validate(spec), created=created)


def workload(
    name: str, service: str = "reviews", *, listening: bool = True, healthy: bool = True, **labels: str
) -> Workload:
    return Workload(
        WorkloadId(f"default/{name}"),
        Namespace("default"),
        service,
        HostId("h1"),
        service=service,
        ports=(WorkloadPort(9080, 8080, Protocol.HTTP, listening),),
        labels=labels_of(labels),
        published_address=f"127.64.0.{len(name)}",
        healthy=healthy,
    )


class Facts:
    """A fact base and all that it has said so far."""

    def __init__(self) -> None:
        self.base = FactBase(MeshSettings())
        self.known: dict[tuple[str, ...], Any] = {}

    def put(
        self, *things: ConfigObject | Workload, removed: tuple[Any, ...] = ()
    ) -> dict[tuple[str, ...], Any]:
        self.base.put_objects([t for t in things if isinstance(t, ConfigObject)])
        self.base.put_workloads([t for t in things if isinstance(t, Workload)])
        self.base.put_objects([], removed=[r for r in removed if isinstance(r, ObjectRef)])
        self.base.put_workloads([], removed=[r for r in removed if not isinstance(r, ObjectRef)])
        changes = self.base.take_changes()
        self.known = {k: v for k, v in (self.known | changes).items() if v is not None}
        return changes

    def endpoints(self, host: str = REVIEWS) -> list[str]:
        found = self.known.get(("endpoints", host))
        return [f"{e.address}:{e.port}" for e in found.endpoints] if found else []


def test_a_workload_makes_its_service_and_an_endpoint() -> None:
    facts = Facts()
    facts.put(workload("r1", version="v1"))
    service = facts.known["service", REVIEWS]
    assert [(p.number, p.protocol, p.app_port) for p in service.ports] == [(9080, Protocol.HTTP, 8080)]
    endpoint = facts.known["endpoints", REVIEWS].endpoints[0]
    assert (endpoint.port, endpoint.wire, endpoint.app_port) == (15006, Wire.MTLS, 9080)
    assert endpoint.identity == "spiffe://cluster.local/ns/default/sa/reviews"
    assert facts.known["index", "http-ports", ""] == (9080,)
    assert facts.known["index", "address", f"{endpoint.address}:9080"] == ((REVIEWS, 9080),)


def test_only_an_instance_that_listens_and_is_healthy_is_an_endpoint() -> None:
    facts = Facts()
    facts.put(workload("a", listening=False), workload("bb", healthy=False), workload("ccc"))
    assert facts.endpoints() == ["127.64.0.3:15006"]


def test_the_last_workload_takes_its_service_with_it() -> None:
    facts = Facts()
    facts.put(workload("r1"))
    facts.base.put_vips({REVIEWS: "240.240.0.1"})
    facts.put()
    assert facts.known["index", "vip", "240.240.0.1"] == (REVIEWS,)
    facts.put(removed=(WorkloadId("default/r1"),))
    assert not [k for k in facts.known if k != ("mesh",)]


def test_a_change_touches_only_its_own_host() -> None:
    facts = Facts()
    facts.put(workload("r1"), workload("d1", "details"))
    changes = facts.put(workload("r2"))
    assert {k[1] for k in changes if k[0] == "endpoints"} == {REVIEWS}
    assert ("service", REVIEWS) not in changes


def test_hosts_need_an_address_until_they_have_one() -> None:
    facts = Facts()
    facts.put(workload("r1"))
    assert facts.base.hosts_without_vip() == (REVIEWS,)
    facts.base.put_vips({REVIEWS: "240.240.0.9"})
    assert facts.base.hosts_without_vip() == ()


def test_a_kubernetes_service_selects_workloads_and_entries_by_label() -> None:
    facts = Facts()
    spec = {"selector": {"app": "r"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]}
    facts.put(
        obj("Service", "front", spec),
        workload("r1", app="r"),
        workload("other", app="x"),
        obj("WorkloadEntry", "vm", {"address": "10.0.0.9", "labels": {"app": "r"}}),
    )
    front = "front.default.svc.cluster.local"
    assert facts.endpoints(front) == ["10.0.0.9:8080", "127.64.0.2:15006"]
    facts.put(workload("r1", app="x"))
    assert facts.endpoints(front) == ["10.0.0.9:8080"]


def test_a_declared_service_goes_before_one_that_workloads_name() -> None:
    facts = Facts()
    facts.put(workload("r1"), obj("Service", "reviews", {"ports": [{"name": "grpc", "port": 9080}]}))
    assert facts.known["service", REVIEWS].ports[0].protocol is Protocol.GRPC
    assert facts.endpoints() == ["127.64.0.2:15006"]


def test_of_two_entries_for_one_host_the_older_wins() -> None:
    facts = Facts()

    def entry(name: str, address: str, created: int) -> ConfigObject:
        spec = {
            "hosts": ["db.example.com"],
            "ports": [{"number": 5432, "name": "tcp", "protocol": "TCP"}],
            "resolution": "STATIC",
            "endpoints": [{"address": address}],
        }
        return obj("ServiceEntry", name, spec, created=created)

    facts.put(entry("b", "10.0.0.2", 2), entry("a", "10.0.0.1", 7))
    assert facts.endpoints("db.example.com") == ["10.0.0.2:5432"]
    service = facts.known["service", "db.example.com"]
    assert (service.external, service.resolution) == (True, Resolution.STATIC)
    facts.put(removed=(ObjectRef("ServiceEntry", Namespace("default"), "b"),))
    assert facts.endpoints("db.example.com") == ["10.0.0.1:5432"]


def virtual_service(name: str) -> ObjectRef:
    return ObjectRef("VirtualService", Namespace("default"), name)


def test_rules_are_found_by_host_oldest_first() -> None:
    facts = Facts()
    rule = {"hosts": ["reviews"], "http": [{"route": [{"destination": {"host": "reviews"}}]}]}
    facts.put(obj("VirtualService", "new", rule, created=5), obj("VirtualService", "old", rule, created=1))
    assert facts.known["index", "vs-host", REVIEWS] == (virtual_service("old"), virtual_service("new"))
    facts.put(obj("VirtualService", "new", {**rule, "hosts": ["*.example.com"]}, created=5))
    assert facts.known["index", "vs-host", REVIEWS] == (virtual_service("old"),)
    assert facts.known["index", "vs-host", "*.example.com"] == (virtual_service("new"),)


def test_faults_are_noted_once_for_the_mesh() -> None:
    facts = Facts()
    abort = {"fault": {"abort": {"httpStatus": 500, "percentage": {"value": 100}}}}
    rule = {"hosts": ["reviews"], "http": [{"route": [{"destination": {"host": "reviews"}}], **abort}]}
    facts.put(obj("VirtualService", "v", rule))
    assert facts.known["index", "uses", "faults"]
    facts.put(removed=(ObjectRef("VirtualService", Namespace("default"), "v"),))
    assert ("index", "uses", "faults") not in facts.known


THINGS = [
    workload("r1", version="v1"),
    workload("r22", version="v2", app="r"),
    workload("d333", "details"),
    obj("Service", "reviews", {"ports": [{"name": "http", "port": 9080}]}, created=3),
    obj("Service", "front", {"selector": {"app": "r"}, "ports": [{"name": "http", "port": 80}]}, created=4),
    obj("WorkloadEntry", "vm", {"address": "10.0.0.9", "labels": {"app": "r"}}, created=5),
    obj("PeerAuthentication", "strict", {"mtls": {"mode": "STRICT"}}, created=6),
    obj("DestinationRule", "reviews", {"host": "reviews"}, created=7),
]


@given(st.permutations(THINGS), st.lists(st.sampled_from(THINGS), max_size=4), st.integers(0, 9))
def test_order_and_detours_do_not_matter(order: list[Any], detour: list[Any], seed: int) -> None:
    straight = Facts()
    straight.put(*THINGS)
    winding = Facts()
    for thing in order:
        winding.put(thing)
    for thing in detour:
        winding.put(removed=(thing.id if isinstance(thing, Workload) else thing.ref,))
    random.Random(seed).shuffle(detour)
    for thing in detour:
        winding.put(thing)
    assert winding.known == straight.known
