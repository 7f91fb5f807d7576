from __future__ import annotations

import json

from retia.aio.clock import ManualClock
from retia.control.learned import MOST, SPACE, Learned, key_of
from retia.model.ids import HostId, Namespace, WorkloadId
from retia.model.mesh import Workload, labels_of
from retia.model.resource import Name, TypeUrl
from retia.sources.memory import MemoryStore
from retia.sources.space import Space

VHDS = TypeUrl.VIRTUAL_HOST
WEEK_S = 7 * 24 * 3600


def workload(name: str, service: str = "", version: str = "") -> Workload:
    labels = labels_of({"version": version} if version else {})
    return Workload(
        WorkloadId(f"default/{name}"),
        Namespace("default"),
        service or "default",
        HostId("h"),
        service,
        labels=labels,
    )


def host(n: int) -> Name:
    return Name(VHDS, f"80/s{n}")


def test_replicas_share_what_they_learn_and_versions_do_not() -> None:
    one, two = workload("reviews-v1-0", "reviews", "v1"), workload("reviews-v1-1", "reviews", "v1")
    assert key_of(one) == key_of(two)
    assert key_of(one) != key_of(workload("reviews-v2-0", "reviews", "v2"))
    assert key_of(workload("loader-0")) == key_of(workload("loader-1"))
    assert key_of(None) == ""


def test_names_are_remembered_over_a_restart() -> None:
    space, clock = Space(MemoryStore(), SPACE), ManualClock()
    learned = Learned(space, clock)
    learned.add("k", [host(1), host(2)])
    learned.save()
    assert set(Learned(space, clock).names("k")) == {host(1), host(2)}


def test_names_unused_for_a_week_are_forgotten() -> None:
    clock = ManualClock()
    learned = Learned(Space(MemoryStore(), SPACE), clock)
    learned.add("k", [host(1), host(2)])
    clock.advance(WEEK_S - 100)
    learned.add("k", [host(2)])
    clock.advance(200)
    assert learned.names("k") == [host(2)]


def test_only_the_latest_are_kept() -> None:
    clock = ManualClock()
    learned = Learned(Space(MemoryStore(), SPACE), clock)
    for n in range(MOST + 50):
        clock.advance(1)
        learned.add("k", [host(n)])
    names = learned.names("k")
    assert len(names) == MOST
    assert host(MOST + 49) in names
    assert host(0) not in names


def test_endpoints_and_listeners_are_not_learned() -> None:
    learned = Learned(Space(MemoryStore(), SPACE), ManualClock())
    learned.add("k", [Name(TypeUrl.ENDPOINTS, "a"), Name(TypeUrl.LISTENER, "b")])
    assert learned.names("k") == []


def test_a_damaged_record_is_an_empty_one() -> None:
    space = Space(MemoryStore(), SPACE)
    space.set("k", b"nonsense")
    space.set("l", json.dumps([["XDS", "a", 1], ["VHDS", "80/a", 1_700_000_000]]).encode())
    learned = Learned(space, ManualClock())
    assert learned.names("k") == []
    assert learned.names("l") == [Name(VHDS, "80/a")]
