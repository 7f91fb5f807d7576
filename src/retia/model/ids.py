"""Identifiers: strings that mustn't be confused with one another."""

from __future__ import annotations

from typing import NewType

Host = NewType("Host", str)
"""A service's full name, such as ``reviews.default.svc.cluster.local``: lower case, no dot at the end."""

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


def qualify(host: str, namespace: str, suffix: str = DNS_SUFFIX) -> Host:
    """A host as written in an object, fully qualified.

    A name with no dot is a service of the object's own namespace; anything else stands as it is, in lower
    case (Istio reference, VirtualService ``hosts``).
    """
    host = host.lower().rstrip(".")
    return service_host(host, namespace, suffix) if "." not in host and host != "*" else Host(host)


def expansions(name: str, namespace: str, suffix: str = DNS_SUFFIX) -> tuple[Host, ...]:
    """The full names that a client in ``namespace`` may mean by ``name``, the preferred one first.

    ``reviews``, ``reviews.default`` and ``reviews.default.svc`` mean the service before a host of just that
    name; anything else means itself.
    """
    name = name.rstrip(".")
    labels = name.split(".")
    svc, _, domain = suffix.partition(".")
    if len(labels) == 1:
        return (service_host(name, namespace, suffix), Host(name))
    if len(labels) == 2:
        return (Host(f"{name}.{suffix}"), Host(name))
    if len(labels) == 3 and labels[2] == svc and domain:
        return (Host(f"{name}.{domain}"), Host(name))
    return (Host(name),)


def wildcards_of(host: str) -> tuple[str, ...]:
    """The wildcard hosts that cover ``host``, the most specific first: ``a.b.c`` gives ``*.b.c *.c *``."""
    labels = host.removeprefix("*.").split(".")
    start = 0 if host.startswith("*.") else 1
    covering = [f"*.{'.'.join(labels[i:])}" for i in range(start, len(labels))]
    return (*(c for c in covering if c != host), *(("*",) if host != "*" else ()))


MESH_GATEWAY = "mesh"
"""The reserved name of the gateway that all sidecars are."""


def gateway_name(written: str, namespace: str) -> str:
    """A gateway as objects of ``namespace`` name it, as ``namespace/name``.

    ``ingress`` and ``./ingress`` are of the object's own namespace; ``ingress.infra`` and
    ``ingress.infra.svc.cluster.local`` are old spellings of ``infra/ingress``.
    """
    if written == MESH_GATEWAY:
        return MESH_GATEWAY
    if "/" in written:
        where, _, name = written.partition("/")
        return f"{namespace if where == '.' else own_namespace(where)}/{name}"
    name, dot, rest = written.partition(".")
    return f"{own_namespace(rest.partition('.')[0])}/{name}" if dot else f"{namespace}/{name}"


ISTIO_NAMESPACE = "istio-system"
"""Istio's root namespace, read as :data:`MESH_NAMESPACE`."""


def own_namespace(namespace: str) -> Namespace:
    """The namespace in which the objects of ``namespace`` are kept."""
    return MESH_NAMESPACE if namespace == ISTIO_NAMESPACE else Namespace(namespace)
