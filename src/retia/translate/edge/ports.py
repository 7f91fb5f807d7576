"""The servers of a gateway proxy by the port that it binds, and the names that follow from that."""

from __future__ import annotations

from dataclasses import dataclass

from retia.model.snapshot import View
from retia.policy.edge import edge_servers
from retia.policy.edge.forms import EdgeProtocol, EdgeServer, EdgeTlsMode

_ISTIO_KIND = "Gateway"


@dataclass(frozen=True, slots=True)
class EdgePort:
    """One listener: an address and a port, with all servers that share them, the oldest first."""

    address: str
    number: int
    udp: bool
    servers: tuple[EdgeServer, ...]
    quic: bool = False
    """The UDP port of the same number as a TCP port, where HTTP/3 is spoken for those of its servers that
    have it."""

    @property
    def listener(self) -> str:
        """``0.0.0.0_8443``, as in Istio."""
        name = f"{self.address}_{self.number}"
        return f"udp_{name}" if self.udp else name

    @property
    def plain_http(self) -> tuple[EdgeServer, ...]:
        return tuple(server for server in self.servers if server.protocol is EdgeProtocol.HTTP)


def edge_ports(view: View, _key: str = "") -> tuple[EdgePort, ...]:
    """All ports of this proxy."""
    found: dict[tuple[str, int, bool], list[EdgeServer]] = {}
    for server in view.query(edge_servers, "").servers:
        address = server.bind or view.proxy("edge_address") or "0.0.0.0"
        found.setdefault((address, server.bind_port, server.protocol is EdgeProtocol.UDP), []).append(server)
    ports = [EdgePort(*key, tuple(found[key])) for key in sorted(found)]
    for port in tuple(ports):
        quick = tuple(server for server in port.servers if server.http3)
        # A UDPRoute's port comes first: HTTP/3 is an offer only.
        if quick and (port.address, port.number, True) not in found:
            ports.append(EdgePort(port.address, port.number, True, quick, quic=True))
    return tuple(ports)


def passes_names(view: View, _key: str) -> bool:
    """Whether any server passes TLS on to the destination that its server name names."""
    servers = view.query(edge_servers, "").servers
    return any(s.tls is not None and s.tls.mode is EdgeTlsMode.AUTO_PASSTHROUGH for s in servers)


def route_config(port: EdgePort, server: EdgeServer) -> str:
    """The route configuration of a server: ``http.80`` for all servers in plain text of a port,
    ``https.443.<port's name>.<gateway>.<namespace>`` for one that ends TLS."""
    if server.protocol is EdgeProtocol.HTTP:
        first = port.plain_http[0]
        return f"http.{first.port}.{first.bind}" if first.bind else f"http.{first.port}"
    group = "" if server.ref.kind == _ISTIO_KIND else f".{server.ref.kind.lower()}"
    return f"https.{server.port}.{server.name}.{server.ref.name}.{server.ref.namespace}{group}"


def find_routes(view: View, name: str) -> tuple[EdgePort, tuple[EdgeServer, ...]] | None:
    """The port and the servers behind a route configuration's name."""
    for port in view.query(edge_ports, ""):
        mine = tuple(s for s in port.servers if s.protocol.is_http and route_config(port, s) == name)
        if mine:
            return port, mine
    return None
