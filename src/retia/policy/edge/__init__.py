"""Gateways: which ports a gateway proxy opens, and what happens to what comes in there.

Istio's ``Gateway`` and Gateway API's are read by a :class:`Provider` each; here they are joined. A provider's
functions are queries (``view.query``): each reads through the view and gives a hashable form.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from typing import Any

from retia.model import annotation
from retia.model.finding import Finding
from retia.model.snapshot import View
from retia.policy.edge import istio
from retia.policy.edge.forms import (
    EdgeHost,
    EdgeProtocol,
    EdgeServer,
    EdgeServers,
    EdgeTlsMode,
    TcpRules,
)
from retia.policy.routing.forms import HttpRules

__all__ = ["Provider", "edge_hosts", "edge_rules", "edge_servers", "edge_tcp"]


@dataclass(frozen=True, slots=True)
class Provider:
    """Who reads one kind of gateway object."""

    prefix: str
    """What the keys of its servers begin with: ``istio/``."""
    servers: Callable[[View, str], EdgeServers]
    """All servers for this proxy; the key says nothing."""
    hosts: Callable[[View, str], tuple[EdgeHost, ...]]
    """The hosts of the HTTP server of that key."""
    tcp: Callable[[View, str], TcpRules]
    """The rules of the TCP or TLS server of that key."""
    rules: Callable[[View, Any], HttpRules] | None = None
    """The rules of a host by its ``source``; ``None``: hosts of this provider have none."""


def edge_servers(view: View, _key: str = "") -> EdgeServers:
    """All servers of this proxy, those of earlier providers first."""
    found = [view.query(provider.servers, "") for provider in providers()]
    servers = tuple(_bound(view, server) for part in found for server in part.servers)
    findings: tuple[Finding, ...] = tuple(each for part in found for each in part.findings)
    return EdgeServers(servers, findings, tuple(each for part in found for each in part.provenance))


def edge_hosts(view: View, key: str) -> tuple[EdgeHost, ...]:
    """The hosts of a server with their rules.

    Not remembered as a whole: a gateway may have thousands, of which one has changed.
    """
    provider = _provider(key)
    return provider.hosts(view, key) if provider is not None else ()


def edge_rules(view: View, key: tuple[str, Hashable]) -> HttpRules:
    """The rules of a host, by its server's key and its source."""
    server, source = key
    provider = _provider(server)
    if provider is None or provider.rules is None:
        raise LookupError(f"the hosts of {server} have no source")
    return view.query(provider.rules, source)


def edge_tcp(view: View, key: str) -> TcpRules:
    """What a server does with connections."""
    provider = _provider(key)
    return view.query(provider.tcp, key) if provider is not None else TcpRules(())


def _provider(key: str) -> Provider | None:
    return next((each for each in providers() if key.startswith(each.prefix)), None)


def _bound(view: View, server: EdgeServer) -> EdgeServer:
    """The server with the port on which this proxy really listens."""
    ports = dict(view.proxy("edge_ports"))
    asked = dict(view.proxy("annotations")).get(annotation.HTTP3) == "true"
    simple = server.tls is not None and server.tls.mode is EdgeTlsMode.SIMPLE
    return replace(
        server,
        bind_port=server.bind_port or ports.get(server.port, server.port),
        http3=(server.http3 or asked) and simple and server.protocol is EdgeProtocol.HTTPS,
    )


def providers() -> tuple[Provider, ...]:
    """Every provider, in order of precedence."""
    # Imported here: it reads the forms of this package.
    from retia.policy.gateway_api import provider

    return (
        Provider(istio.PREFIX, istio.servers, istio.hosts, istio.tcp, istio.rules),
        Provider(provider.PREFIX, provider.servers, provider.hosts, provider.tcp),
    )
