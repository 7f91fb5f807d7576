"""Follows one call through Envoy's resources, and says what becomes of it and why.

Five words: a *call* is a connection, and with HTTP a request on it; a *lookup* gives a resource's message by
its name, as generated or as a proxy holds it; a *path* is what one proxy does with a call, as typed steps; a
*destination* is a cluster with its share, endpoints and TLS; *unknown* is said of everything that this
package can't interpret, which is never guessed.

    lookup = from_bytes(lambda name: build(view, name).message)     # any way to the bytes of a name
    call = http_call("GET", "http://reviews:9080/x", address="240.240.0.7", protocol=Protocol.HTTP)
    path = explain(lookup, call)                                    # the caller's proxy
    path.answer, path.destinations, path.rule, path.unknown
    arrival = explain(peer_lookup, arriving(path.destinations[0], call, address, port))   # the callee's proxy
    lines(path), data(path)                                         # for people, for JSON

It is written after Envoy's documentation and knows nothing of the translator, so that tests can hold the one
against the other. Nothing is decided by chance: a split is given as its shares.
"""

from retia.explain.calls import Call, Connection, Request, arriving, http_call, tcp_call
from retia.explain.forms import (
    Answer,
    Chain,
    Destination,
    Effect,
    Endpoint,
    Fault,
    Listener,
    Lost,
    NetworkFilter,
    Path,
    Rule,
    Step,
    Tls,
    Unknown,
    VirtualHost,
)
from retia.explain.render import data, lines
from retia.explain.resources import Lookup, from_bytes
from retia.explain.walk import explain

__all__ = [
    "Answer",
    "Call",
    "Chain",
    "Connection",
    "Destination",
    "Effect",
    "Endpoint",
    "Fault",
    "Listener",
    "Lookup",
    "Lost",
    "NetworkFilter",
    "Path",
    "Request",
    "Rule",
    "Step",
    "Tls",
    "Unknown",
    "VirtualHost",
    "arriving",
    "data",
    "explain",
    "from_bytes",
    "http_call",
    "lines",
    "tcp_call",
]
