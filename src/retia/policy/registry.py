"""Which service, and which of its endpoints, a client means.

A client names its destination by a ``Host`` header, by a virtual address, or by the address of one endpoint
(clients that balance for themselves). :func:`resolve_name` and :func:`resolve_address` turn all three into a
:class:`Destination`. They are too cheap to be remembered by themselves.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from retia.model.ids import Host, SpiffeId, expansions, wildcards_of
from retia.model.mesh import Endpoint, MeshSettings, Service
from retia.model.snapshot import View
from retia.policy.scope import is_seen

_DEFAULTS = MeshSettings()


@dataclass(frozen=True, slots=True)
class Destination:
    """A service's port, or one endpoint behind it."""

    host: Host
    port: int
    pinned: str = ""
    """``ip:port`` where the client dialled one endpoint itself; empty: the service as a whole."""
    rivals: tuple[Host, ...] = ()
    """Other services that publish the same endpoint: the address is ambiguous."""


def mesh(view: View) -> MeshSettings:
    """The mesh-wide settings; the defaults where no source gave any."""
    return view.fact("mesh") or _DEFAULTS


def service(view: View, host: str) -> Service | None:
    """The service of that exact host."""
    found: Service | None = view.fact("service", host)
    return found


def endpoints(view: View, host: str) -> tuple[Endpoint, ...]:
    """All endpoints of a service, on all ports."""
    found = view.fact("endpoints", host)
    return found.endpoints if found is not None else ()


def spellings(host: str, namespace: str, client_namespace: str, suffix: str) -> tuple[str, ...]:
    """The names by which a client may call a service, the full one first.

    ``reviews.default.svc.cluster.local`` is also ``reviews.default.svc``, ``reviews.default`` and, within its
    own namespace, ``reviews``. Hosts outside the mesh's domain have one name.
    """
    tail = f".{namespace}.{suffix}"
    if not host.endswith(tail) or host.startswith("*"):
        return (host,)
    name = host[: -len(tail)]
    first, dot, _ = suffix.partition(".")
    forms = [host]
    if dot:
        forms.append(f"{name}.{namespace}.{first}")
    forms.append(f"{name}.{namespace}")
    if namespace == client_namespace:
        forms.append(name)
    return tuple(forms)


def resolve_name(view: View, name: str, namespace: str, port: int) -> Destination | None:
    """The destination that ``name`` (without a port) means in a client's namespace; ``None``: unknown.

    Short names are tried before the name as it stands, so that an object can't take over ``reviews.default``
    by naming it as a host.
    """
    for candidate in expansions(name, namespace, mesh(view).dns_suffix):
        found = service(view, candidate)
        if found is not None and is_seen(view, found, port):
            return _destination(view, found, port)
    return resolve_wildcard(view, name.rstrip("."), port) if _looks_like_name(name) else None


def _destination(view: View, found: Service, port: int) -> Destination | None:
    """The port of a service, or of the service of the mesh that it is another name of."""
    other = service(view, found.alias) if found.alias else None
    if other is not None and other.host != found.host and is_seen(view, other, port):
        found = other
    return Destination(found.host, port) if found.port(port) else None


def resolve_wildcard(view: View, name: str, port: int) -> Destination | None:
    """The most specific wildcard service (``*.example.com``) that covers the name and has the port."""
    hosts = set(view.index("se-wildcard", ""))
    if not hosts:
        return None
    for wildcard in wildcards_of(name):
        if wildcard in hosts:
            found = service(view, wildcard)
            if found is not None and found.port(port) and is_seen(view, found, port):
                return Destination(found.host, port)
    return None


def resolve_address(view: View, ip: str, port: int) -> Destination | None:
    """The destination of a dialled ``(ip, port)``: a service's virtual address, or one endpoint."""
    for host in view.index("vip", ip):
        found = service(view, host)
        if found is not None and is_seen(view, found, port):
            destination = _destination(view, found, port)
            if destination is not None:
                return destination
    address = f"{ip}:{port}"
    owners = address_owners(view, address)
    if not owners:
        return _resolve_network(view, ip, port)
    host, service_port = owners[0]
    rivals = tuple(sorted({h for h, _ in owners if h != host}))
    return Destination(host, service_port, pinned=address, rivals=rivals)


def _resolve_network(view: View, ip: str, port: int) -> Destination | None:
    """The service of the narrowest network (``10.1.0.0/16``) that holds an address and has the port."""
    networks: tuple[tuple[str, tuple[Host, ...]], ...] = view.index("networks", "")
    if not networks:
        return None
    address = ipaddress.ip_address(ip)
    holding = [(ipaddress.ip_network(text, strict=False), hosts) for text, hosts in networks]
    around = [(net, hosts) for net, hosts in holding if net.version == address.version and address in net]
    for _, hosts in sorted(around, key=lambda pair: -pair[0].prefixlen):
        for host in hosts:
            found = service(view, host)
            if found is not None and found.port(port) and is_seen(view, found, port):
                return Destination(found.host, port)
    return None


def is_hidden(view: View, name: str, namespace: str) -> bool:
    """Whether a name is a service's that this proxy doesn't see (by ``exportTo`` or a Sidecar)."""
    for candidate in expansions(name, namespace, mesh(view).dns_suffix):
        found = service(view, candidate)
        if found is not None:
            return not is_seen(view, found)
    return False


def address_owners(view: View, address: str) -> tuple[tuple[Host, int], ...]:
    """Whose endpoint ``ip:port`` is: services with their ports, as this proxy's host sees it.

    Hosts give their instances the same loopback addresses. An instance of this host is meant, if there is
    one; otherwise whichever it was that the client was told of.
    """
    own: tuple[tuple[Host, int], ...] = view.index("address", f"{address}@{view.proxy('host')}")
    return tuple(
        (host, port)
        for host, port in own or view.index("address", address)
        if (found := service(view, host)) is None or is_seen(view, found, port)
    )


def identities(view: View, host: str, port: int) -> tuple[SpiffeId, ...]:
    """The identities behind a service's port, sorted, each once: what a client accepts there.

    A service with no endpoint yet is expected to run under its own name, the default service account; a
    client never accepts just anybody of the trust domain.
    """
    known = service(view, host)
    named = (
        {SpiffeId(n) for n in known.alt_names if n.startswith("spiffe://")} if known is not None else set()
    )
    found = {e.identity for e in endpoints(view, host) if e.service_port == port and e.identity}
    if found or named:
        return tuple(sorted(found | named))
    if known is None:
        return ()
    return (SpiffeId(f"spiffe://{mesh(view).trust_domain}/ns/{known.namespace}/sa/{known.name}"),)


def _looks_like_name(name: str) -> bool:
    return ":" not in name and not name.replace(".", "").isdigit()
