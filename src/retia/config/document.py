"""Objects back as documents: what a person could have written to get the object."""

from __future__ import annotations

from typing import Any

from retia.config.kinds import KINDS
from retia.model.objects import ConfigObject


def to_document(obj: ConfigObject) -> dict[str, Any]:
    """The object as plain JSON data; parsing it gives an equal object. Defaults are left out."""
    kind = KINDS[obj.ref.kind]
    metadata: dict[str, Any] = {"name": obj.ref.name}
    if kind.namespaced:
        metadata["namespace"] = str(obj.ref.namespace)
    if obj.labels:
        metadata["labels"] = dict(obj.labels)
    if obj.annotations:
        metadata["annotations"] = dict(obj.annotations)
    content = obj.spec.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return {
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "metadata": metadata,
        **({"spec": content} if kind.roots == ("spec",) else content),
    }
