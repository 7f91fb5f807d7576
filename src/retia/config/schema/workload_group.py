"""``WorkloadGroup``: what instances have in common. networking.istio.io.

An instance joins a group by its annotation ``retia.dev/workload-group``.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from retia.config.schema.base import FrozenMap, Model
from retia.config.schema.types import LabelMap, Port, Text, UInt32, Unread


class GroupMetadata(Model):
    """What each instance has as its own."""

    labels: LabelMap = ()
    annotations: FrozenMap[Text, Text] = ()


class GroupTemplate(Model):
    """A WorkloadEntry without an address."""

    address: Text = ""
    """Of no instance: each has its own."""
    ports: Annotated[FrozenMap[Text, Port], Field(max_length=128)] = ()
    labels: LabelMap = ()
    network: Text = ""
    locality: Text = ""
    """Of instances whose host says none."""
    weight: UInt32 = 0
    """0: 1."""
    service_account: Text = ""


class WorkloadGroup(Model):
    metadata: GroupMetadata = GroupMetadata()
    template: GroupTemplate
    probe: Unread | None = None
