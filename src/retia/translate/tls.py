"""TLS contexts: the mesh's own in both directions, and those that a DestinationRule originates.

Between proxies: TLS 1.3, own certificate and trust bundle from the agent over SDS. A client verifies the
exact SPIFFE identities behind the service; a server requires a client certificate of the trust domain.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from envoy.extensions.transport_sockets.raw_buffer.v3 import raw_buffer_pb2
from envoy.extensions.transport_sockets.tls.v3 import common_pb2, tls_pb2

from retia.policy.traffic import Tls, TlsMode
from retia.policy.traffic.read import SYSTEM_CA_FILE
from retia.translate import pb
from retia.translate.names import ALPN_L4, SECRET_OWN, SECRET_ROOT

_TLS = "envoy.transport_sockets.tls"
_RAW = "envoy.transport_sockets.raw_buffer"
_URI = common_pb2.SubjectAltNameMatcher.URI
_DNS = common_pb2.SubjectAltNameMatcher.DNS
_TLS_1_2 = common_pb2.TlsParameters.TLSv1_2
_TLS_1_3 = common_pb2.TlsParameters.TLSv1_3
MAX_SESSION_KEYS = 32
"""Sessions kept for resumption: with 1 (Envoy's default) 63 % of handshakes resume, with 32 nearly all."""

NOBODY = "spiffe://invalid/nobody"
"""The name of no certificate: ``invalid`` is no trust domain (RFC 2606)."""

_RAW_PARTS = pb.packed(raw_buffer_pb2.RawBuffer())


def raw_buffer(socket: Any) -> None:
    """Fill a ``TransportSocket``: no TLS."""
    socket.name = _RAW
    pb.put(socket.typed_config, _RAW_PARTS)


def mesh_client(socket: Any, server_name: str, identities: Iterable[str], alpn: str) -> None:
    """Fill a ``TransportSocket``: mutual TLS to a peer that has one of exactly these identities.

    With none known nobody is accepted: a list without names would accept every certificate of the mesh, in
    the moment when a service's first endpoint is there and its name isn't yet.
    """
    context = tls_pb2.UpstreamTlsContext()
    common = context.common_tls_context
    _mesh_common(common, alpn)
    sans = common.combined_validation_context.default_validation_context.match_typed_subject_alt_names
    for identity in tuple(identities) or (NOBODY,):
        san = sans.add()
        san.san_type = _URI
        san.matcher.exact = identity
    context.sni = server_name
    context.max_session_keys.value = MAX_SESSION_KEYS
    socket.name = _TLS
    pb.pack(socket.typed_config, context)


def mesh_server(socket: Any, trust_domain: str, alpn: str = ALPN_L4) -> None:
    """Fill a ``TransportSocket``: mutual TLS with anybody of the trust domain."""
    context = tls_pb2.DownstreamTlsContext()
    common = context.common_tls_context
    _mesh_common(common, alpn)
    validation = common.combined_validation_context.default_validation_context
    san = validation.match_typed_subject_alt_names.add()
    san.san_type = _URI
    san.matcher.prefix = f"spiffe://{trust_domain}/"
    context.require_client_certificate.value = True
    socket.name = _TLS
    pb.pack(socket.typed_config, context)


def originate(socket: Any, tls: Tls, host: str, alpn: tuple[str, ...]) -> None:
    """Fill a ``TransportSocket``: TLS to a server outside the mesh (``SIMPLE`` and ``MUTUAL``)."""
    context = tls_pb2.UpstreamTlsContext()
    common = context.common_tls_context
    common.tls_params.tls_minimum_protocol_version = _TLS_1_2
    common.alpn_protocols.extend(alpn)
    if tls.mode is TlsMode.MUTUAL:
        own = common.tls_certificates.add()
        own.certificate_chain.filename = tls.certificate_file
        own.private_key.filename = tls.key_file
    server_name = tls.sni or ("" if host.startswith("*") else host)
    if not tls.skip_verify:
        validation = common.validation_context
        validation.trusted_ca.filename = tls.ca_file or SYSTEM_CA_FILE
        for name in tls.names or ((server_name,) if server_name else ()):
            san = validation.match_typed_subject_alt_names.add()
            san.san_type = _URI if "://" in name else _DNS
            san.matcher.exact = name
    context.sni = server_name
    context.max_session_keys.value = MAX_SESSION_KEYS
    socket.name = _TLS
    pb.pack(socket.typed_config, context)


def _mesh_common(common: Any, alpn: str) -> None:
    common.alpn_protocols.append(alpn)
    params = common.tls_params
    params.tls_minimum_protocol_version = _TLS_1_3
    params.tls_maximum_protocol_version = _TLS_1_3
    own = common.tls_certificate_sds_secret_configs.add()
    own.name = SECRET_OWN
    pb.from_ads(own.sds_config)
    root = common.combined_validation_context.validation_context_sds_secret_config
    root.name = SECRET_ROOT
    pb.from_ads(root.sds_config)
