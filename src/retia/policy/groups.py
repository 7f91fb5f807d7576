"""WorkloadGroups: what an instance gets from the group that it says it belongs to.

An agent starts an instance, so its address, account and identity are the agent's to say; a group gives what
the agent leaves out: labels, where it stands, its weight.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from retia.model import annotation
from retia.model.mesh import Workload, labels_of
from retia.model.objects import ObjectRef


def group_of(workload: Workload) -> ObjectRef | None:
    """The group that a workload belongs to, whether or not there is one of that name; ``None``: to none."""
    name = dict(workload.annotations).get(annotation.GROUP)
    return ObjectRef("WorkloadGroup", workload.namespace, name) if name else None


def in_group(workload: Workload, group: Any) -> Workload:
    """The workload as a member: what it says itself goes before what the group says."""
    template = group.template
    labels = {**dict(template.labels), **dict(group.metadata.labels), **dict(workload.labels)}
    annotations = {**dict(group.metadata.annotations), **dict(workload.annotations)}
    return replace(
        workload,
        labels=labels_of(labels),
        annotations=labels_of(annotations),
        locality=workload.locality or template.locality,
        weight=template.weight or 1,
    )
