"""``ReferenceGrant``: the owner of a namespace lets others refer into it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from retia.config.schema.base import Model, Problem
from retia.config.schema.gateway_api.types import (
    Group,
    KindName,
    Namespace,
    NotEmpty,
    ObjectName,
    count_problems,
)


class ReferenceGrantFrom(Model):
    group: Group
    kind: KindName
    namespace: Namespace


class ReferenceGrantTo(Model):
    group: Group
    kind: KindName
    name: ObjectName | None = None
    """Absent: all objects of the kind."""


class ReferenceGrant(Model):
    """Lets objects of other namespaces refer to some of this one."""

    from_: Annotated[tuple[ReferenceGrantFrom, ...], NotEmpty]
    to: Annotated[tuple[ReferenceGrantTo, ...], NotEmpty]

    def problems(self) -> Iterator[Problem]:
        yield from count_problems("from", self.from_, 16)
        yield from count_problems("to", self.to, 16)
