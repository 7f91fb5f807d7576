"""Which protocol a declared port speaks.

Istio's protocol selection (reference "Protocol Selection"): ``appProtocol`` first, then the port's name up to
the first ``-``, otherwise undeclared. Names are compared in lower case.
"""

from __future__ import annotations

from retia.model.mesh import Protocol

_BY_WORD = {
    "http": Protocol.HTTP,
    "http2": Protocol.HTTP2,
    "kubernetes.io/h2c": Protocol.HTTP2,
    "kubernetes.io/ws": Protocol.HTTP,
    "grpc": Protocol.GRPC,
    "grpc-web": Protocol.GRPC,
    "https": Protocol.TLS,
    "kubernetes.io/wss": Protocol.TLS,
    "tls": Protocol.TLS,
    "tcp": Protocol.TCP,
    "mongo": Protocol.TCP,
    "mysql": Protocol.TCP,
    "redis": Protocol.TCP,
    "dubbo": Protocol.TCP,
    "thrift": Protocol.TCP,
}
"""Protocols that have no filter of their own here are carried as opaque TCP, as Istio does by default for
MySQL, Redis and MongoDB."""


def declared_protocol(name: str = "", app_protocol: str = "") -> Protocol:
    """The protocol that a port declares; :attr:`Protocol.AUTO` where it declares none that is known."""
    if app_protocol:
        return _BY_WORD.get(app_protocol.lower(), Protocol.TCP)
    lower = name.lower()
    if lower.startswith("grpc-web"):
        return Protocol.GRPC
    return _BY_WORD.get(lower.partition("-")[0], Protocol.AUTO)
