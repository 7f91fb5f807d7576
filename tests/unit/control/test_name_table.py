from __future__ import annotations

from retia._generated import agent_pb2 as pb
from retia.control.name_table import NameTable
from retia.model.ids import Host, Namespace
from retia.model.mesh import Endpoint, EndpointSet, Protocol, Service, ServicePort, Wire
from retia.model.snapshot import Snapshot


class Scene:
    def __init__(self) -> None:
        self.snapshot = Snapshot()
        self.table = NameTable("epoch")

    def service(self, name: str, *addresses: str, vip: str = "240.240.0.1") -> bool:
        host = Host(f"{name}.default.svc.cluster.local")
        service = Service(host, Namespace("default"), name, (ServicePort(80, Protocol.HTTP),), vip=vip)
        endpoints = EndpointSet(
            host, tuple(Endpoint(80, a, 15006, Wire.MTLS, app_port=80) for a in addresses)
        )
        return self.change({("service", host): service, ("endpoints", host): endpoints})

    def remove(self, name: str) -> bool:
        host = f"{name}.default.svc.cluster.local"
        return self.change({("service", host): None, ("endpoints", host): None})

    def change(self, facts: dict[tuple[str, ...], object]) -> bool:
        self.snapshot, changed = self.snapshot.with_changes(facts)
        return self.table.take(self.snapshot, changed)

    def since(self, epoch: str, revision: int) -> list[pb.Names]:
        return [pb.ControllerMessage.FromString(m).names for m in self.table.since(epoch, revision)]


def test_a_new_agent_gets_the_whole_table() -> None:
    scene = Scene()
    scene.service("a", "127.64.0.1")
    (names,) = scene.since("", 0)
    assert names.full
    assert names.entries[0].host == "a.default.svc.cluster.local"
    assert list(names.entries[0].endpoints) == ["127.64.0.1:80"]


def test_an_agent_of_this_epoch_gets_what_changed() -> None:
    scene = Scene()
    scene.service("a")
    scene.service("b")
    known = scene.table.revision
    scene.service("c")
    scene.remove("a")
    (names,) = scene.since("epoch", known)
    assert not names.full
    assert [e.host for e in names.entries] == ["c.default.svc.cluster.local"]
    assert list(names.removed) == ["a.default.svc.cluster.local"]
    assert scene.since("epoch", scene.table.revision) == []


def test_an_agent_of_another_epoch_gets_all() -> None:
    scene = Scene()
    scene.service("a")
    assert scene.since("before", scene.table.revision)[0].full
    assert scene.since("epoch", scene.table.revision + 5)[0].full


def test_a_change_that_callers_do_not_see_is_none() -> None:
    scene = Scene()
    assert scene.service("a", "127.64.0.1")
    assert not scene.service("a", "127.64.0.1")
    assert scene.service("a", "127.64.0.1", "127.64.0.2")


def test_a_service_without_an_address_waits_for_one() -> None:
    scene = Scene()
    assert not scene.service("a", vip="")
    assert scene.service("a", vip="240.240.0.9")


def test_a_large_table_comes_in_pieces() -> None:
    scene = Scene()
    for n in range(2500):
        scene.service(f"s{n}")
    messages = scene.since("", 0)
    assert [len(m.entries) for m in messages] == [1000, 1000, 500]
    assert [m.full for m in messages] == [True, False, False]
