"""The middle form of gateways: which ports a gateway proxy opens, for which hosts, and what happens there.

An :class:`EdgeServer` is one port with the hosts that it serves; several may have one port, and are told
apart by host (plain HTTP) or by server name (TLS). What it does with requests are :class:`EdgeHost`, with
connections :class:`~retia.policy.routing.forms.TcpRule`. Istio's ``Gateway`` and Gateway
API's are both read into these.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from enum import StrEnum

from retia.model.finding import Finding
from retia.model.objects import ObjectRef
from retia.model.resource import Provenance
from retia.policy.routing.forms import HttpRules, TcpRule, TcpRules


class EdgeProtocol(StrEnum):
    """What a server's port speaks on the outside."""

    HTTP = "http"
    """HTTP of any version and gRPC, in plain text."""
    HTTPS = "https"
    """HTTP inside TLS that ends here."""
    TLS = "tls"
    """TLS: passed on unopened, or ended here with opaque bytes inside (see :class:`EdgeTls`)."""
    TCP = "tcp"
    UDP = "udp"

    @property
    def is_http(self) -> bool:
        return self in (EdgeProtocol.HTTP, EdgeProtocol.HTTPS)


class EdgeTlsMode(StrEnum):
    SIMPLE = "simple"
    """The server has a certificate; clients need none."""
    MUTUAL = "mutual"
    OPTIONAL_MUTUAL = "optional-mutual"
    """A client's certificate is verified where it shows one."""
    MESH_MUTUAL = "mesh-mutual"
    """With the mesh's own identities (``ISTIO_MUTUAL``)."""
    PASSTHROUGH = "passthrough"
    """Not opened: routed by the server name."""
    AUTO_PASSTHROUGH = "auto-passthrough"
    """Not opened: the server name names a destination of the mesh (``outbound_.9080_._.reviews…``)."""

    @property
    def is_opened(self) -> bool:
        """TLS ends at the gateway."""
        return self not in (EdgeTlsMode.PASSTHROUGH, EdgeTlsMode.AUTO_PASSTHROUGH)


__all__ = [
    "Authority",
    "Certificate",
    "EdgeHost",
    "EdgeProtocol",
    "EdgeServer",
    "EdgeServers",
    "EdgeTls",
    "EdgeTlsMode",
    "HttpRules",
    "TcpRule",
    "TcpRules",
    "TlsVersion",
]


class TlsVersion(StrEnum):
    AUTO = "auto"
    """As the proxy chooses: at least 1.2 for servers."""
    V1_0 = "1.0"
    V1_1 = "1.1"
    V1_2 = "1.2"
    V1_3 = "1.3"


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate with its key: a secret by its name, or two files on the gateway's host."""

    secret: str = ""
    """``namespace/name`` of a ``Secret``, which must exist (whoever makes this has looked)."""
    chain_file: str = ""
    key_file: str = ""


@dataclass(frozen=True, slots=True)
class Authority:
    """Who may have signed clients' certificates: a secret, or a file on the gateway's host."""

    secret: str = ""
    """``namespace/name`` of the secret whose ``ca.crt`` (``cacert``) it is; the secret
    ``<name>-cacert`` is used in its place where there is one."""
    file: str = ""
    crl_file: str = ""
    """A revocation list; with ``secret`` the list is the secret's (``ca.crl``)."""
    pem: bytes = b""
    """The certificates themselves, where they are in no secret."""

    @property
    def is_empty(self) -> bool:
        return not self.secret and not self.file and not self.pem


@dataclass(frozen=True, slots=True)
class EdgeTls:
    """How a server's TLS is ended, or that it isn't."""

    mode: EdgeTlsMode
    certificates: tuple[Certificate, ...] = ()
    authority: Authority = Authority()
    """Needed for ``MUTUAL``; the mesh's own is used for ``MESH_MUTUAL``."""
    names: tuple[str, ...] = ()
    """Subject alternative names of which a client must have one; empty: anybody that was signed."""
    spki: tuple[str, ...] = ()
    """SHA-256 of public keys, base64, of which the client's must be one."""
    hashes: tuple[str, ...] = ()
    """SHA-256 of certificates, hexadecimal."""
    min_version: TlsVersion = TlsVersion.AUTO
    max_version: TlsVersion = TlsVersion.AUTO
    ciphers: tuple[str, ...] = ()
    """Empty: the proxy's own list."""
    alpn: tuple[str, ...] = ()
    """What is offered; empty: by the protocol."""
    accept_untrusted: bool = False
    """A client's certificate is asked for and passed on, whoever signed it (Gateway API's
    ``AllowInsecureFallback``)."""


@dataclass(frozen=True, slots=True)
class EdgeServer:
    """One port of a gateway with the hosts that it serves."""

    key: str
    """Names it among all servers of the proxy, and begins with its provider's prefix (``istio/``)."""
    port: int
    """As the object says, and as clients are told."""
    protocol: EdgeProtocol
    hosts: tuple[str, ...]
    """Host names, ``*.example.com`` or ``*``, without namespaces."""
    ref: ObjectRef
    field: str
    """Where it was written: ``spec.servers[0]``."""
    name: str = ""
    """The port's or listener's name: a part of the route configuration's."""
    bind_port: int = 0
    """Where the proxy listens; 0: as the proxy's port map says. Filled in by :func:`edge_servers`."""
    bind: str = ""
    """The address to listen on; empty: the proxy's."""
    tls: EdgeTls | None = None
    https_redirect: bool = False
    """Requests in plain text are sent to ``https``."""
    grpc_web: bool = False
    http3: bool = False
    """QUIC as well, on the UDP port of the same number."""


@dataclass(frozen=True, slots=True)
class EdgeHost:
    """What holds for some ``Host`` headers at a server."""

    domains: tuple[str, ...]
    """Each at most once at one server; ``*`` is every other host."""
    rules: HttpRules
    source: Hashable = None
    """By what its provider finds the rules again (``Provider.rules``), so that what was made of them can be
    remembered; ``None``: by nothing short."""


@dataclass(frozen=True, slots=True)
class EdgeServers:
    """All servers of a proxy, oldest object first, and what is wrong with those that are left out."""

    servers: tuple[EdgeServer, ...] = ()
    findings: tuple[Finding, ...] = ()
    provenance: tuple[Provenance, ...] = ()
