"""What an instance gets from its WorkloadGroup."""

from __future__ import annotations

from dataclasses import replace

from retia.model.mesh import MeshSettings, Workload
from retia.policy.facts import FactBase
from tests.support.documents import parse_text
from tests.support.world import World

GROUP = """
apiVersion: networking.istio.io/v1
kind: WorkloadGroup
metadata: {name: vms}
spec:
  metadata: {labels: {tier: gold, app: other}}
  template: {labels: {zone: a}, locality: eu/a, weight: 3}
"""


def member() -> Workload:
    (workload,) = World().service("reviews").workloads
    return replace(workload, annotations=(("retia.dev/workload-group", "vms"),))


def test_a_member_gets_what_it_does_not_say_itself() -> None:
    base = FactBase(MeshSettings())
    base.put_workloads([member()])
    base.put_objects(parse_text(GROUP).objects)
    base.take_changes()
    found = base.workloads[member().id]

    assert dict(found.labels) == {"app": "reviews", "tier": "gold", "version": "v1", "zone": "a"}
    assert (found.locality, found.weight) == ("eu/a", 3)


def test_without_the_group_a_member_is_as_its_agent_says() -> None:
    base = FactBase(MeshSettings())
    objects = parse_text(GROUP).objects
    base.put_objects(objects)
    base.put_workloads([member()])
    base.put_objects((), removed=[o.ref for o in objects])
    base.take_changes()

    assert base.workloads[member().id] == member()
