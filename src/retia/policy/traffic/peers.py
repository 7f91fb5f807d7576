"""Where a client dials for a destination, and with which kind of TLS: automatic mutual TLS.

Each endpoint says how it is reached (its *wire*); a DestinationRule's ``tls`` overrides that, and so does a
PeerAuthentication of mode DISABLE on the endpoint's port. Endpoints of other hosts stand behind their host's
gateway, which takes nothing but the mesh's TLS: those keep it whatever PeerAuthentication says.
"""

from __future__ import annotations

from dataclasses import dataclass

from retia.model.mesh import Endpoint, Labels, Wire
from retia.model.snapshot import View
from retia.policy.authn import Inbound, namespace_has_policies, port_mode
from retia.policy.lanes import selects
from retia.policy.registry import endpoints, identities
from retia.policy.traffic.forms import Peers, Tls, TlsMode
from retia.policy.traffic.locality import Near, dense, near
from retia.policy.traffic.resolve import traffic_policy


@dataclass(frozen=True, slots=True, order=True)
class Dial:
    """One address to connect to. ``plain``: without the mesh's TLS."""

    address: str
    """An IP address, a host name, or ``unix://`` and a path."""
    port: int
    plain: bool = False
    weight: int = 1


@dataclass(frozen=True, slots=True)
class DialGroup:
    """Addresses that are used alike."""

    dials: tuple[Dial, ...]
    locality: str = ""
    priority: int = 0
    """0: used first."""
    weight: int = 0
    """Its share among the groups of its priority; 0: none of them has one."""


def dials(view: View, host: str, port: int, subset: str) -> tuple[Dial, ...] | None:
    """All addresses behind a destination; ``None``: there is no such subset."""
    found = dial_groups(view, host, port, subset)
    return None if found is None else tuple(sorted(dial for group in found for dial in group.dials))


def dial_groups(view: View, host: str, port: int, subset: str) -> tuple[DialGroup, ...] | None:
    """The addresses behind a destination for this proxy, the nearest first, each group's sorted; ``None``:
    there is no such subset.

    Endpoints behind one gateway of another host are one address that weighs as much as all of them.
    """
    policy = view.query(traffic_policy, (host, port, subset))
    if policy is None:
        return None
    wires = _Wires(view, policy.tls)
    distance = near(view, host, policy)
    single: dict[tuple[int, str], list[Dial]] = {}
    grouped: dict[tuple[int, str], dict[tuple[str, int], int]] = {}
    for endpoint in _selected(endpoints(view, host), port, policy.labels):
        dial = wires.dial(endpoint)
        place = _place(distance, endpoint)
        mine = single.setdefault(place, [])
        if wires.behind_gateway(endpoint):
            weights = grouped.setdefault(place, {})
            key = (dial.address, dial.port)
            weights[key] = weights.get(key, 0) + dial.weight
        else:
            mine.append(dial)
    for place, weights in grouped.items():
        single[place] += [Dial(address, at, False, weight) for (address, at), weight in weights.items()]
    return _arranged(single, distance)


def _place(distance: Near | None, endpoint: Endpoint) -> tuple[int, str]:
    """An endpoint's priority and locality; one place for all where nobody asks how near they are."""
    if distance is None:
        return 0, ""
    priority = distance.priority(endpoint.locality, endpoint.labels, endpoint.host)
    return priority, endpoint.locality


def _arranged(found: dict[tuple[int, str], list[Dial]], distance: Near | None) -> tuple[DialGroup, ...]:
    if distance is None:
        return tuple(DialGroup(tuple(sorted(group))) for group in found.values())
    order = dense(priority for priority, _ in found)
    weights = {place: sum(dial.weight for dial in group) for place, group in found.items()}
    shares = distance.share({locality: weight for (_, locality), weight in weights.items()})
    return tuple(
        DialGroup(
            tuple(sorted(found[priority, locality])),
            locality,
            order[priority],
            weights[priority, locality] if shares is None else shares[locality],
        )
        for priority, locality in sorted(found)
        if shares is None or shares.get(locality)
    )


def endpoint_dial(view: View, endpoint: Endpoint, tls: Tls | None) -> Dial:
    """Where this proxy connects to for one endpoint."""
    return _Wires(view, tls).dial(endpoint)


def endpoint_peers(view: View, endpoint: Endpoint, port: int, host: str, tls: Tls | None) -> Peers:
    """What stands behind one endpoint of a service.

    Behind another host's gateway any instance of the service may answer, so all its identities are accepted.
    """
    wires = _Wires(view, tls)
    if wires.is_plain(endpoint):
        return Peers(mesh=False, plain=True, http=False)
    if endpoint.identity is not None and not wires.behind_gateway(endpoint):
        return Peers(mesh=True, plain=False, http=endpoint.http_inbound, identities=(endpoint.identity,))
    return Peers(mesh=True, plain=False, http=endpoint.http_inbound, identities=identities(view, host, port))


def peers(view: View, key: tuple[str, int, str]) -> Peers | None:
    """What stands behind ``(host, port, subset)``; ``None``: there is no such subset.

    With no endpoint at all, mutual TLS is expected: an answer that is never laxer than the first endpoint's.
    """
    host, port, _ = key
    policy = view.query(traffic_policy, key)
    if policy is None:
        return None
    wires = _Wires(view, policy.tls)
    mesh = plain = False
    http = True
    for endpoint in _selected(endpoints(view, host), port, policy.labels):
        if wires.is_plain(endpoint):
            plain = True
        else:
            mesh = True
            http = http and endpoint.http_inbound
    if not mesh and not plain:
        mesh = policy.tls is None or policy.tls.mode is TlsMode.MESH
        plain, http = not mesh, False
    return Peers(mesh, plain, http and mesh, identities(view, host, port) if mesh else ())


def pinned_endpoint(view: View, key: tuple[str, int, str]) -> Endpoint | None:
    """The endpoint of ``(host, service port, "ip:port")``, that of this proxy's host if several hosts have
    one; ``None``: it is gone."""
    host, port, address = key
    here, other = view.proxy("host"), None
    for endpoint in endpoints(view, host):
        known_as = f"{endpoint.address}:{endpoint.app_port or endpoint.port}"
        if endpoint.service_port == port and known_as == address:
            if endpoint.host == here:
                return endpoint
            other = other or endpoint
    return other


def _selected(candidates: tuple[Endpoint, ...], port: int, labels: Labels) -> list[Endpoint]:
    return [e for e in candidates if e.service_port == port and selects(labels, e.labels)]


class _Wires:
    """Decides about the endpoints of one destination; looks each namespace's policies up once."""

    def __init__(self, view: View, tls: Tls | None) -> None:
        self.view = view
        self.tls = tls
        self._has_policies: dict[str, bool] = {}

    def dial(self, endpoint: Endpoint) -> Dial:
        if self.is_plain(endpoint):
            at = endpoint.port if endpoint.wire is Wire.PLAIN else endpoint.app_port or endpoint.service_port
            return Dial(endpoint.address, at, True, endpoint.weight)
        if self.behind_gateway(endpoint):
            address, at = endpoint.gateway_address, endpoint.gateway_port
        else:
            address, at = endpoint.address, endpoint.port
        return Dial(address, at, False, endpoint.weight)

    def is_plain(self, endpoint: Endpoint) -> bool:
        """Whether the mesh's TLS is not used towards an endpoint."""
        if self.tls is not None:
            return self.tls.mode is not TlsMode.MESH
        if endpoint.wire is Wire.PLAIN:
            return True
        return self._is_disabled(endpoint) and not self._is_remote(endpoint)

    def behind_gateway(self, endpoint: Endpoint) -> bool:
        """Whether the endpoint is reached through the gateway of another host."""
        return self._is_remote(endpoint) and (self.tls is None or self.tls.mode is TlsMode.MESH)

    def _is_remote(self, endpoint: Endpoint) -> bool:
        if not endpoint.gateway_address or endpoint.wire is not Wire.MTLS:
            return False
        return bool(endpoint.host != self.view.proxy("host"))

    def _is_disabled(self, endpoint: Endpoint) -> bool:
        if endpoint.workload is None:
            return False
        namespace = endpoint.workload.partition("/")[0]
        known = self._has_policies.get(namespace)
        if known is None:
            known = self._has_policies[namespace] = namespace_has_policies(self.view, namespace)
        if not known:
            return False
        number = endpoint.app_port or endpoint.service_port
        return self.view.query(port_mode, (namespace, endpoint.labels, number)).mode is Inbound.DISABLE
