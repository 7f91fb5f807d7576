"""``ProxyConfig``: how proxies themselves run. networking.istio.io."""

from __future__ import annotations

from collections.abc import Iterator

from retia.config.codes import Code
from retia.config.schema.base import FrozenMap, Model, Problem
from retia.config.schema.selector import WorkloadSelector
from retia.config.schema.types import Int, Text


class ProxyImage(Model):
    image_type: Text = ""


class ProxyConfig(Model):
    selector: WorkloadSelector | None = None
    """Absent: all workloads of the namespace."""
    concurrency: Int | None = None
    """Worker threads of Envoy; 0: one a core."""
    environment_variables: FrozenMap[Text, Text] = ()
    image: ProxyImage | None = None

    def problems(self) -> Iterator[Problem]:
        if self.concurrency is not None and self.concurrency < 0:
            yield Problem(("concurrency",), f"is {self.concurrency}; it must be 0 or more", Code.BAD_VALUE)
