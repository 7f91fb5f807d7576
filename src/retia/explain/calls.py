"""Calls: what a program does, as far as its proxy sees it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from retia.explain.forms import Destination, Endpoint
from retia.model.mesh import Protocol

_CAPTURED = {
    Protocol.AUTO: "outbound-auto",
    Protocol.HTTP: "outbound-http",
    Protocol.HTTP2: "outbound-http",
    Protocol.GRPC: "outbound-http",
}


@dataclass(frozen=True, slots=True)
class Connection:
    """A connection as it enters a proxy.

    ``address`` and ``port`` are what was dialled, after any redirection by the kernel is undone.
    ``server_name`` and ``alpn`` are what a TLS client says. ``silent``: the client waits for the other side
    to speak first, so nothing can be found out from its bytes.
    """

    listener: str
    address: str
    port: int
    tls: bool = False
    server_name: str = ""
    alpn: tuple[str, ...] = ()
    source: str = "127.0.0.1"
    source_port: int = 0
    identity: str = ""
    """The SPIFFE id of the client's certificate; empty: it shows none."""
    silent: bool = False
    udp: bool = False


@dataclass(frozen=True, slots=True)
class Request:
    """An HTTP request. Header names are lower case; ``host`` is as the client wrote it."""

    method: str
    host: str
    path: str = "/"
    """With the query."""
    headers: tuple[tuple[str, str], ...] = ()
    scheme: str = "http"
    body_bytes: int = 0
    http2: bool = False

    @property
    def lookup(self) -> dict[str, str]:
        """Headers and pseudo headers by name; several values of one name joined by commas."""
        found = {
            ":method": self.method,
            ":authority": self.host,
            "host": self.host,
            ":scheme": self.scheme,
            ":path": self.path,
        }
        for name, value in self.headers:
            found[name] = f"{found[name]},{value}" if name in found else value
        return found


@dataclass(frozen=True, slots=True)
class Call:
    """A connection, and the request on it (``None``: bytes that are no HTTP)."""

    connection: Connection
    request: Request | None = None
    command: tuple[str, ...] = ()
    """Words of a Redis command on it; empty: none that is known."""


def outbound_listener(protocol: Protocol) -> str:
    """The listener to which a captured connection to a port of that protocol is redirected."""
    return _CAPTURED.get(protocol, "outbound-tcp")


def http_call(
    method: str,
    url: str,
    *,
    address: str,
    protocol: Protocol = Protocol.HTTP,
    listener: str = "",
    headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
    body_bytes: int = 0,
    **connection: object,
) -> Call:
    """A request for ``url`` by a program that connects to ``address`` at the URL's port.

    ``listener`` defaults to that for captured connections to a port of ``protocol``. A header ``host``
    replaces the URL's. Further arguments are fields of :class:`Connection`.
    """
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    pairs = [(n.lower(), v) for n, v in (headers.items() if isinstance(headers, Mapping) else headers)]
    host = next((v for n, v in pairs if n == "host"), parts.netloc)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    entry = Connection(listener or outbound_listener(protocol), address, port)
    request = Request(
        method.upper(),
        host,
        path,
        tuple((n, v) for n, v in pairs if n != "host"),
        parts.scheme,
        body_bytes,
        http2=protocol.is_http2,
    )
    return Call(replace(entry, **connection), request)  # type: ignore[arg-type]


def tcp_call(
    address: str, port: int, *, protocol: Protocol = Protocol.TCP, listener: str = "", **connection: object
) -> Call:
    """A connection without HTTP; ``tls=True`` and ``server_name`` for TLS that the proxy passes on."""
    entry = Connection(listener or outbound_listener(protocol), address, port)
    return Call(replace(entry, **connection), None)  # type: ignore[arg-type]


def arriving(
    destination: Destination, call: Call, endpoint: Endpoint, *, listener: str = "inbound", identity: str = ""
) -> Call:
    """The call as it arrives at the proxy of one of a destination's endpoints.

    ``identity``: the SPIFFE id of the calling proxy.
    """
    address, _, port = endpoint.address.rpartition(":")
    tls = endpoint.tls
    connection = Connection(
        listener,
        address,
        int(port),
        tls=tls is not None or (destination.codec == "" and call.connection.tls),
        server_name=tls.server_name if tls is not None else call.connection.server_name,
        alpn=tls.alpn if tls is not None else call.connection.alpn,
        identity=identity if tls is not None and tls.certificate else "",
    )
    request = call.request
    if request is not None and destination.codec:
        request = Request(
            destination.method or request.method,
            destination.host or request.host,
            destination.path or request.path,
            destination.headers,
            request.scheme,
            request.body_bytes,
            http2=destination.codec == "http2",
        )
    return Call(connection, request)
