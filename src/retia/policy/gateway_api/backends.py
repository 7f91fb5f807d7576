"""What a backendRef means: a service's port, or why it means nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from retia.model.ids import service_host
from retia.model.mesh import Protocol
from retia.model.objects import ObjectRef
from retia.model.snapshot import View
from retia.policy.gateway_api.grants import is_granted
from retia.policy.gateway_api.listeners import Reason
from retia.policy.registry import mesh, service
from retia.policy.routing.forms import Target

HOSTNAME_GROUP = "networking.istio.io"


@dataclass(frozen=True, slots=True)
class Backend:
    target: Target
    protocol: Protocol


def backend(view: View, origin: ObjectRef, ref: Any) -> Backend | Reason:
    """The destination that ``origin`` refers to: a Service, or Istio's ``Hostname``."""
    if (ref.group, ref.kind) == (HOSTNAME_GROUP, "Hostname"):
        return _found(view, ref.name.lower(), ref.port or 0, f"host {ref.name}")
    if ref.group not in ("", "core") or ref.kind != "Service":
        return Reason("InvalidKind", f"{ref.kind} {ref.name} is no Service")
    namespace = ref.namespace or origin.namespace
    if not is_granted(view, origin, "", "Service", namespace, ref.name):
        return Reason(
            "RefNotPermitted", f"no ReferenceGrant in {namespace} allows Service {namespace}/{ref.name}"
        )
    host = service_host(ref.name, namespace, mesh(view).dns_suffix)
    return _found(view, host, ref.port, f"Service {namespace}/{ref.name}")


def _found(view: View, host: str, port: int, what: str) -> Backend | Reason:
    known = service(view, host)
    if known is None:
        return Reason("BackendNotFound", f"{what} doesn't exist")
    if not port and len(known.ports) == 1:
        port = known.ports[0].number
    served = known.port(port)
    if served is None:
        numbers = ", ".join(str(each.number) for each in known.ports) or "none"
        return Reason("BackendNotFound", f"{what} has no port {port} (it has {numbers})")
    return Backend(Target(known.host, port), served.protocol)
