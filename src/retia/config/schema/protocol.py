"""What a port speaks, by Istio's rules: ``appProtocol``, or the start of the port's name up to ``-``."""

from __future__ import annotations

from retia.model.mesh import Protocol

UDP = "UDP"
_BY_NAME = {
    "tcp": Protocol.TCP,
    "grpc": Protocol.GRPC,
    "grpc-web": Protocol.GRPC,
    "http": Protocol.HTTP,
    "http_proxy": Protocol.HTTP,
    "http2": Protocol.HTTP2,
    "https": Protocol.TLS,
    "tls": Protocol.TLS,
    "mongo": Protocol.TCP,
    "redis": Protocol.TCP,
    "mysql": Protocol.TCP,
}
"""``https`` is TLS that the application begins itself: passed on unopened. ``mongo``, ``redis`` and ``mysql``
are carried as opaque TCP."""
_APP_PROTOCOLS = {
    "kubernetes.io/h2c": Protocol.HTTP2,
    "kubernetes.io/ws": Protocol.HTTP,
    "kubernetes.io/wss": Protocol.TLS,
}
_SERVER_FIRST_PORTS = frozenset({25, 53, 3306, 27017})
"""Ports on which detection would break or slow the usual program (SMTP, DNS, MySQL, MongoDB): Istio's."""

KNOWN = tuple(sorted({*_BY_NAME, "udp"}))


def is_known(name: str) -> bool:
    """Whether Istio knows a protocol of that name (in any case)."""
    return name.lower() in KNOWN


def of_name(name: str) -> Protocol | None:
    """The protocol of a declared name; ``""``: to be detected; ``None``: UDP, which is not carried."""
    lower = name.lower()
    if lower == "udp":
        return None
    return _BY_NAME.get(lower, Protocol.AUTO)


def of_service_port(number: int, name: str, transport: str, app_protocol: str | None) -> Protocol | None:
    """The protocol of a Kubernetes Service's port; ``None``: not TCP, so not carried."""
    if transport.upper() != "TCP":
        return None
    said = name if app_protocol is None else app_protocol
    if app_protocol is not None and said in _APP_PROTOCOLS:
        return _APP_PROTOCOLS[said]
    if said.lower().startswith("grpc-web"):
        return Protocol.GRPC
    found = _BY_NAME.get(said.partition("-")[0].lower())
    if found is None and number in _SERVER_FIRST_PORTS:
        return Protocol.TCP
    return found or Protocol.AUTO
