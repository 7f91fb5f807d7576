"""The names of Envoy resources: one grammar, built and parsed here only.

Envoy's names are an interface: dashboards, logs and raw patches refer to them, and on demand they are the
only thing that a proxy says when it asks for something. Clusters follow Istio's grammar where it has one.

=============================================  ====================================================
name                                           what
=============================================  ====================================================
``outbound|9080|v1|reviews.default.svc…``      cluster and endpoints: port, subset (may be empty), host
``outbound|9080|rollout~canary|reviews…``      the same for a version that a rollout (``rollout~stable``,
                                               ``rollout~canary``) or a lane (``lane~alice``) chose: no
                                               subset's name has a ``~``
``tcp|240.240.0.7:5432``                       cluster: opaque TCP to an address that was dialled
``opaque|9080|v1|reviews…``                    cluster: bytes to a service's HTTP port, unparsed
``240.240.0.7_5432``                           internal listener: the rules for an address that was dialled
``endpoint|127.64.0.3:9080|9080|reviews…``     cluster and endpoints: one instance dialled by its address,
                                               with its service's port and host
``outbound_.9080_.v1_.reviews.default.svc…``   server name between proxies; cluster and endpoints at a host
                                               gateway
``inbound|9080||``                             cluster: the application behind a sidecar
``PassthroughCluster``                         cluster: wherever the client dialled
``ForwardProxyCluster``                        cluster: whatever host the request names (explicit capture)
``BlackHoleCluster``                           cluster: nowhere
``9080``, ``explicit``, ``upstream-9001``      route configurations
``http.80``, ``https.443.<port name>.<gw>…``   route configurations of a gateway (``translate.edge.ports``)
``0.0.0.0_8443``, ``status``                   listeners of a gateway
``kubernetes://<name>[-cacert]``               secrets (``translate.secrets``)
``9080/reviews:9080``                          virtual host: route configuration and ``Host`` header
``9080/_``                                     virtual host without a message, which unblocks a listener
=============================================  ====================================================
"""

from __future__ import annotations

from dataclasses import dataclass

OUTBOUND_HTTP = "outbound-http"
OUTBOUND_AUTO = "outbound-auto"
OUTBOUND_TCP = "outbound-tcp"
EXPLICIT = "explicit"
INBOUND = "inbound"
GATEWAY = "gateway"
EDGE_STATUS = "status"
UPSTREAM = "upstream-"

PASSTHROUGH = "PassthroughCluster"
FORWARD_PROXY = "ForwardProxyCluster"
BLACK_HOLE = "BlackHoleCluster"
BY_SERVER_NAME = "outbound_."
"""How server names, and the clusters that they name, begin."""

ALPN_L4 = "retia-l4"
"""After TLS and identity the peer passes bytes; the client speaks the application's own codec."""
ALPN_H2 = "retia-h2"
"""The peer parses HTTP; HTTP/2 between the proxies."""

SECRET_OWN = "default"
SECRET_ROOT = "ROOTCA"
"""The names of Istio's secrets, served by the host's agent."""

DEFAULT_HTTP_PORT = 80


@dataclass(frozen=True, slots=True)
class Outbound:
    """``outbound|<port>|<subset>|<host>``."""

    port: int
    subset: str
    host: str

    def __str__(self) -> str:
        return f"outbound|{self.port}|{self.subset}|{self.host}"

    @property
    def server_name(self) -> str:
        """What the peer, or the gateway of its host, knows the destination by."""
        return str(ByServerName(self.port, self.subset, self.host))


@dataclass(frozen=True, slots=True)
class ByServerName:
    """The same destination as a host gateway sees it: ``outbound_.<port>_.<subset>_.<host>``."""

    port: int
    subset: str
    host: str

    def __str__(self) -> str:
        return f"{BY_SERVER_NAME}{self.port}_.{self.subset}_.{self.host}"


@dataclass(frozen=True, slots=True)
class TcpDial:
    """``tcp|<ip>:<port>``: what a client of opaque TCP dialled."""

    ip: str
    port: int

    def __str__(self) -> str:
        return f"tcp|{join_host_port(self.ip, self.port)}"

    @property
    def listener(self) -> str:
        """The internal listener where rules split such connections; named as Istio names the like."""
        return f"{self.ip}_{self.port}"


@dataclass(frozen=True, slots=True)
class Opaque:
    """``opaque|<port>|<subset>|<host>``: an HTTP port that connections are routed to without looking in."""

    port: int
    subset: str
    host: str

    def __str__(self) -> str:
        return f"opaque|{self.port}|{self.subset}|{self.host}"


@dataclass(frozen=True, slots=True)
class Pinned:
    """``endpoint|<ip>:<port>|<service port>|<host>``: one instance of a service."""

    address: str
    """``ip:port`` as the client dialled it."""
    service_port: int
    host: str

    def __str__(self) -> str:
        return f"endpoint|{self.address}|{self.service_port}|{self.host}"


@dataclass(frozen=True, slots=True)
class InboundPort:
    """``inbound|<port>||``."""

    port: int

    def __str__(self) -> str:
        return f"inbound|{self.port}||"


@dataclass(frozen=True, slots=True)
class Fixed:
    """One of the clusters with a name of its own."""

    name: str

    def __str__(self) -> str:
        return self.name


ClusterName = Outbound | ByServerName | TcpDial | Opaque | Pinned | InboundPort | Fixed


def parse_cluster(name: str) -> ClusterName | None:
    """The parts of a cluster's name; ``None``: not a name of this mesh."""
    if name in (PASSTHROUGH, FORWARD_PROXY, BLACK_HOLE):
        return Fixed(name)
    if name.startswith(BY_SERVER_NAME):
        return _parse_server_name(name)
    kind, *rest = name.split("|")
    if kind in ("outbound", "opaque") and len(rest) == 3 and rest[2]:
        port = parse_port(rest[0])
        make = Outbound if kind == "outbound" else Opaque
        return make(port, rest[1], rest[2]) if port else None
    if kind == "tcp" and len(rest) == 1:
        ip, port = split_host_port(rest[0])
        return TcpDial(ip, port) if ip and port else None
    if kind == "endpoint" and len(rest) == 3 and rest[2]:
        port = parse_port(rest[1])
        return Pinned(rest[0], port, rest[2]) if port and split_host_port(rest[0])[1] else None
    if kind == "inbound" and len(rest) == 3 and not rest[1] and not rest[2]:
        port = parse_port(rest[0])
        return InboundPort(port) if port else None
    return None


def parse_dialled_listener(name: str) -> TcpDial | None:
    """The address of an internal listener's name; ``None``: not such a name."""
    ip, _, port_text = name.rpartition("_")
    port = parse_port(port_text)
    return TcpDial(ip, port) if ip and port and (":" in ip or ip.replace(".", "").isdigit()) else None


def _parse_server_name(name: str) -> ByServerName | None:
    _, port_text, subset, host = (*name.split("_.", 3), "", "", "")[:4]
    port = parse_port(port_text)
    return ByServerName(port, subset, host) if port and host else None


def parse_port(text: str) -> int:
    """A port number 1..65535; 0: no such number."""
    if not text.isascii() or not text.isdigit() or len(text) > 5 or text.startswith("0"):
        return 0
    number = int(text)
    return number if number < 65536 else 0


def split_host_port(text: str) -> tuple[str, int]:
    """``reviews:9080`` as its two parts; 0: no port. Brackets of an IPv6 address are taken off."""
    head, colon, tail = text.rpartition(":")
    if colon and not text.endswith("]") and (":" not in head or head.startswith("[")):
        port = parse_port(tail)
        return (_bare(head), port) if port else (text, 0)
    return _bare(text), 0


def join_host_port(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _bare(host: str) -> str:
    return host[1:-1] if host.startswith("[") and host.endswith("]") else host


@dataclass(frozen=True, slots=True)
class HostName:
    """A virtual host's name: route configuration and the ``Host`` header that was sent."""

    route_config: str
    authority: str

    def __str__(self) -> str:
        return f"{self.route_config}/{self.authority}"

    @property
    def is_placeholder(self) -> bool:
        return self.authority == "_"


def parse_virtual_host(name: str) -> HostName | None:
    """Split at the last ``/``: a ``Host`` header has none."""
    route_config, slash, authority = name.rpartition("/")
    return HostName(route_config, authority) if slash and route_config and authority else None


def placeholder(route_config: str) -> str:
    """The virtual host that exists for every route configuration and never has a message."""
    return f"{route_config}/_"


def upstream_listener(local_port: int) -> str:
    return f"{UPSTREAM}{local_port}"


def parse_upstream(name: str) -> int:
    """The local port of an upstream's listener or route configuration; 0: not such a name."""
    return parse_port(name.removeprefix(UPSTREAM)) if name.startswith(UPSTREAM) else 0
