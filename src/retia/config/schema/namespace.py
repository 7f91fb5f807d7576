"""Kubernetes ``Namespace``: its labels. A namespace needs no object to be used."""

from __future__ import annotations

from retia.config.schema.base import Model
from retia.config.schema.types import Text


class NamespaceSpec(Model):
    finalizers: tuple[Text, ...] = ()
