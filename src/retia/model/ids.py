"""Identifiers: strings that mustn't be confused with one another."""

from __future__ import annotations

from typing import NewType

Host = NewType("Host", str)
"""A service's fully qualified name, for example ``reviews.default.svc.cluster.local``; lower case, no dot at the end."""

Namespace = NewType("Namespace", str)
HostId = NewType("HostId", str)
"""A machine with an agent."""

WorkloadId = NewType("WorkloadId", str)
"""One running instance: ``<namespace>/<name>``, for example ``default/reviews-v1-0``."""

ProxyId = NewType("ProxyId", str)
"""One Envoy. A sidecar has its workload's id; a host gateway is ``host/<host id>``."""

SpiffeId = NewType("SpiffeId", str)
"""``spiffe://<trust domain>/ns/<namespace>/sa/<account>``."""

MESH_NAMESPACE = Namespace("retia-system")
"""The root namespace, as ``istio-system`` is Istio's: its policies apply to the whole mesh. Objects in
``istio-system`` are read as if they stood here."""

DNS_SUFFIX = "svc.cluster.local"


def service_host(name: str, namespace: str, suffix: str = DNS_SUFFIX) -> Host:
    """The fully qualified name of a service of the registry."""
    return Host(f"{name}.{namespace}.{suffix}")
