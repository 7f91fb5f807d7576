"""Where a client dials for a destination, and with which kind of TLS: automatic mutual TLS.

Each endpoint says how it is reached (its *wire*); a DestinationRule's ``tls`` overrides that, and so does a
PeerAuthentication of mode DISABLE on the endpoint's port. Endpoints of other hosts stand behind their host's
gateway, which takes nothing but the mesh's TLS: those keep it whatever PeerAuthentication says.
"""

from __future__ import annotations

from dataclasses import dataclass

from retia.model.mesh import Endpoint, Labels, Wire, labels_match
from retia.model.snapshot import View
from retia.policy.authn import Inbound, namespace_has_policies, port_mode
from retia.policy.registry import endpoints, identities
from retia.policy.traffic.forms import Peers, Tls, TlsMode
from retia.policy.traffic.resolve import traffic_policy


@dataclass(frozen=True, slots=True, order=True)
class Dial:
    """One address to connect to. ``plain``: without the mesh's TLS."""

    address: str
    port: int
    plain: bool = False
    weight: int = 1
    locality: str = ""


def dials(view: View, host: str, port: int, subset: str) -> tuple[Dial, ...] | None:
    """The addresses behind a destination for this proxy, sorted; ``None``: there is no such subset.

    Endpoints behind one gateway of another host are one address that weighs as much as all of them.
    """
    policy = view.query(traffic_policy, (host, port, subset))
    if policy is None:
        return None
    single: list[Dial] = []
    grouped: dict[tuple[str, int, str], int] = {}
    for endpoint in _selected(endpoints(view, host), port, policy.labels):
        if is_remote(view, endpoint) and not _without_mesh_tls(policy.tls):
            key = (endpoint.gateway_address, endpoint.gateway_port, endpoint.locality)
            grouped[key] = grouped.get(key, 0) + endpoint.weight
        else:
            single.append(endpoint_dial(view, endpoint, policy.tls))
    behind = [
        Dial(address, number, False, weight, place) for (address, number, place), weight in grouped.items()
    ]
    return tuple(sorted(single + behind))


def endpoint_dial(view: View, endpoint: Endpoint, tls: Tls | None) -> Dial:
    """Where this proxy connects to for one endpoint that isn't behind another host's gateway."""
    if is_plain(view, endpoint, tls):
        at = endpoint.port if endpoint.wire is Wire.PLAIN else endpoint.app_port or endpoint.service_port
        return Dial(endpoint.address, at, True, endpoint.weight, endpoint.locality)
    return Dial(endpoint.address, endpoint.port, False, endpoint.weight, endpoint.locality)


def is_plain(view: View, endpoint: Endpoint, tls: Tls | None) -> bool:
    """Whether the mesh's TLS is not used towards an endpoint."""
    if tls is not None:
        return tls.mode is not TlsMode.MESH
    if endpoint.wire is Wire.PLAIN:
        return True
    return _disabled(view, endpoint) and not is_remote(view, endpoint)


def is_remote(view: View, endpoint: Endpoint) -> bool:
    """Whether the endpoint is reached through the gateway of another host."""
    if not endpoint.gateway_address or endpoint.wire is not Wire.MTLS:
        return False
    return bool(endpoint.host != view.proxy("host"))


def peers(view: View, key: tuple[str, int, str]) -> Peers | None:
    """What stands behind ``(host, port, subset)``; ``None``: there is no such subset.

    With no endpoint at all, mutual TLS is expected: an answer that is never laxer than the first endpoint's.
    """
    host, port, _ = key
    policy = view.query(traffic_policy, key)
    if policy is None:
        return None
    mesh = plain = False
    http = True
    for endpoint in _selected(endpoints(view, host), port, policy.labels):
        if is_plain(view, endpoint, policy.tls):
            plain = True
        else:
            mesh = True
            http = http and endpoint.http_inbound
    if not mesh and not plain:
        mesh = policy.tls is None or policy.tls.mode is TlsMode.MESH
        plain, http = not mesh, False
    names = view.query(identities, (host, port)) if mesh else ()
    return Peers(mesh, plain, http and mesh, names)


def pinned_endpoint(view: View, key: tuple[str, int, str]) -> Endpoint | None:
    """The endpoint of ``(host, service port, "ip:port")``; ``None``: it is gone."""
    host, port, address = key
    for endpoint in endpoints(view, host):
        if (
            endpoint.service_port == port
            and f"{endpoint.address}:{endpoint.app_port or endpoint.port}" == address
        ):
            return endpoint
    return None


def _selected(candidates: tuple[Endpoint, ...], port: int, labels: Labels) -> list[Endpoint]:
    return [
        e for e in candidates if e.service_port == port and (not labels or labels_match(labels, e.labels))
    ]


def _without_mesh_tls(tls: Tls | None) -> bool:
    return tls is not None and tls.mode is not TlsMode.MESH


def _disabled(view: View, endpoint: Endpoint) -> bool:
    if endpoint.workload is None:
        return False
    namespace = endpoint.workload.partition("/")[0]
    if not namespace_has_policies(view, namespace):
        return False
    number = endpoint.app_port or endpoint.service_port
    return view.query(port_mode, (namespace, endpoint.labels, number)).mode is Inbound.DISABLE
