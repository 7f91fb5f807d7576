"""Istio's annotations of running workloads: which have an effect here.

Those of Istio's injector and of its agent say how a pod is to be made, which here is the business of
``retia run`` and of the mesh file; what they would do is said with each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from retia.analysis.world import World
from retia.config.codes import Code, finding
from retia.model import annotation
from retia.model.finding import Finding
from retia.model.ids import Namespace
from retia.model.objects import ObjectRef

_DOMAINS = ("sidecar.istio.io/", "traffic.sidecar.istio.io/", "proxy.istio.io/", "readiness.status.sidecar")
_OUTBOUND = "a destination that is not of the mesh is never captured, and one of the mesh always is"
_MADE = "the proxy is started by the agent"
WHY: Mapping[str, str] = MappingProxyType(
    {
        "sidecar.istio.io/inject": "start the program with `retia run`, or without it",
        "sidecar.istio.io/userVolume": "the proxy reads files of its host",
        "sidecar.istio.io/userVolumeMount": "the proxy reads files of its host",
        "sidecar.istio.io/interceptionMode": "use `--capture`",
        "sidecar.istio.io/logLevel": "set it at Envoy's admin interface",
        "traffic.sidecar.istio.io/excludeOutboundPorts": _OUTBOUND,
        "traffic.sidecar.istio.io/excludeOutboundIPRanges": _OUTBOUND,
        "traffic.sidecar.istio.io/includeOutboundPorts": _OUTBOUND,
        "traffic.sidecar.istio.io/includeOutboundIPRanges": _OUTBOUND,
        "traffic.sidecar.istio.io/includeInboundPorts": f"name the others in {annotation.OPEN_PORTS}",
        "traffic.sidecar.istio.io/kubevirtInterfaces": "programs are captured by cgroup, not by interface",
        "traffic.sidecar.istio.io/excludeInterfaces": "programs are captured by cgroup, not by interface",
    }
)
"""Why some have no effect, or what to use; others are about how the proxy is made."""


def check(world: World) -> Iterator[Finding]:
    """Annotations of Istio's that do nothing here, of every running workload."""
    for workload in world.workloads or ():
        namespace, _, name = workload.id.partition("/")
        ref = ObjectRef("Workload", Namespace(namespace), name)
        for key, _value in workload.annotations:
            if key.startswith(_DOMAINS) and key != annotation.EXCLUDE_INBOUND:
                message = f"has no effect; {WHY.get(key, _MADE)}"
                yield finding(Code.NO_EFFECT_FIELD, message, ref=ref, field=f"metadata.annotations.{key}")
