"""The mesh's own TLS: whom a client and a server accept."""

from __future__ import annotations

from typing import Any

from envoy.config.core.v3 import base_pb2
from envoy.extensions.transport_sockets.tls.v3 import tls_pb2

from retia.translate import tls


def accepted(*identities: str) -> list[str]:
    """The names that a client accepts of its peer."""
    socket = base_pb2.TransportSocket()
    tls.mesh_client(socket, "outbound_.80_._.a", identities, "retia-l4")
    context = tls_pb2.UpstreamTlsContext()
    assert socket.typed_config.Unpack(context)
    return [san.matcher.exact for san in _validation(context).match_typed_subject_alt_names]


def _validation(context: Any) -> Any:
    return context.common_tls_context.combined_validation_context.default_validation_context


def test_a_client_accepts_exactly_the_identities_of_the_service() -> None:
    assert accepted("spiffe://d/ns/a/sa/b", "spiffe://d/ns/a/sa/c") == [
        "spiffe://d/ns/a/sa/b",
        "spiffe://d/ns/a/sa/c",
    ]


def test_a_client_that_knows_no_identity_accepts_nobody() -> None:
    """Envoy checks no name at all where the list is empty: any workload could then answer for the service."""
    assert accepted() == [tls.NOBODY]


def test_a_server_asks_for_a_certificate_of_its_trust_domain() -> None:
    socket = base_pb2.TransportSocket()
    tls.mesh_server(socket, "shop.example")
    context = tls_pb2.DownstreamTlsContext()
    assert socket.typed_config.Unpack(context)

    (san,) = _validation(context).match_typed_subject_alt_names
    assert context.require_client_certificate.value
    assert san.matcher.prefix == "spiffe://shop.example/", "the slash keeps shop.example.org out"
