"""A configuration object as it lies in a snapshot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from retia.model.ids import Namespace
from retia.model.mesh import Labels


@dataclass(frozen=True, slots=True)
class ObjectRef:
    """Names one object: ``VirtualService/default/reviews``; without a namespace ``GatewayClass/retia``."""

    kind: str
    namespace: Namespace
    name: str

    @property
    def key(self) -> tuple[str, str, str]:
        """The rest of the object's fact key, after ``"config"``."""
        return (self.kind, self.namespace, self.name)

    def __str__(self) -> str:
        return "/".join(part for part in self.key if part)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an object was written; ``line`` counts from 1, 0: unknown."""

    path: str = ""
    line: int = 0


NOWHERE = Origin()


@dataclass(frozen=True, slots=True)
class ConfigObject:
    """One parsed, validated object. ``fact key: ("config", kind, namespace, name)``.

    ``spec`` is the frozen, hashable pydantic model of its kind from ``retia.config.schema``. ``origin`` takes
    no part in equality: the same object read from another line is the same fact.
    """

    ref: ObjectRef
    spec: Any
    labels: Labels = ()
    annotations: Labels = ()
    created: int = 0
    """Order of creation (the store's revision when first applied): the older object wins a conflict, as in
    Istio; ties go by namespace, then name."""

    @property
    def order(self) -> tuple[int, str, str]:
        return (self.created, self.ref.namespace, self.ref.name)
