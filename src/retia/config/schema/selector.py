"""Selecting workloads by label."""

from __future__ import annotations

from retia.config.schema.base import Model
from retia.config.schema.types import SelectorMap


class WorkloadSelector(Model):
    """Workloads that have all these labels (``matchLabels``); none: every workload of the namespace."""

    match_labels: SelectorMap = ()


class EntrySelector(Model):
    """The same under the name that ServiceEntry gives it (``labels``)."""

    labels: SelectorMap = ()
