"""TLS contexts: the mesh's own in both directions, and those that a DestinationRule originates.

Between proxies: TLS 1.3, own certificate and trust bundle from the agent over SDS. A client verifies the
exact SPIFFE identities behind the service; a server requires a client certificate of the trust domain.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from envoy.config.core.v3 import proxy_protocol_pb2
from envoy.extensions.transport_sockets.proxy_protocol.v3 import upstream_proxy_protocol_pb2
from envoy.extensions.transport_sockets.raw_buffer.v3 import raw_buffer_pb2
from envoy.extensions.transport_sockets.tls.v3 import common_pb2, tls_pb2

from retia.model.resource import Name, TypeUrl
from retia.policy.traffic import ProxyHeader, Tls, TlsMode
from retia.policy.traffic.read import SYSTEM_CA_FILE
from retia.translate import pb
from retia.translate.names import ALPN_L4, SECRET_OWN, SECRET_ROOT

_TLS = "envoy.transport_sockets.tls"
_RAW = "envoy.transport_sockets.raw_buffer"
_PROXY = "envoy.transport_sockets.upstream_proxy_protocol"
_PROXY_VERSIONS = {
    ProxyHeader.V1: proxy_protocol_pb2.ProxyProtocolConfig.V1,
    ProxyHeader.V2: proxy_protocol_pb2.ProxyProtocolConfig.V2,
}
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


def originate(
    socket: Any, tls: Tls, server_name: str, service_names: Iterable[str], alpn: tuple[str, ...]
) -> None:
    """Fill a ``TransportSocket``: TLS to a server outside the mesh (``SIMPLE`` and ``MUTUAL``).

    The server's certificate must have one of the rule's names, else one of ``service_names`` (a
    ServiceEntry's), else the name that it is asked for.
    """
    context = tls_pb2.UpstreamTlsContext()
    common = context.common_tls_context
    common.tls_params.tls_minimum_protocol_version = _TLS_1_2
    common.alpn_protocols.extend(alpn)
    if tls.mode is TlsMode.MUTUAL:
        _put_own(common, tls)
    if not tls.skip_verify:
        names = tls.names or tuple(service_names) or ((server_name,) if server_name else ())
        _put_validation(common, tls, names)
    context.sni = server_name
    context.max_session_keys.value = MAX_SESSION_KEYS
    socket.name = _TLS
    pb.pack(socket.typed_config, context)


def _put_own(common: Any, tls: Tls) -> None:
    """The client's certificate: from a Secret, or from files of its host."""
    if tls.credential:
        own_secret = common.tls_certificate_sds_secret_configs.add()
        own_secret.name = credential_secret(tls.credential)
        pb.from_ads(own_secret.sds_config)
        return
    own = common.tls_certificates.add()
    own.certificate_chain.filename = tls.certificate_file
    own.private_key.filename = tls.key_file


def _put_validation(common: Any, tls: Tls, names: Iterable[str]) -> None:
    if tls.credential:
        combined = common.combined_validation_context
        validation = combined.default_validation_context
        authority = combined.validation_context_sds_secret_config
        authority.name = credential_authority(tls.credential)
        pb.from_ads(authority.sds_config)
    else:
        validation = common.validation_context
        if tls.ca_pem:
            validation.trusted_ca.inline_bytes = tls.ca_pem
        else:
            validation.trusted_ca.filename = tls.ca_file or SYSTEM_CA_FILE
        if tls.crl_file:
            validation.crl.filename = tls.crl_file
    for name in names:
        san = validation.match_typed_subject_alt_names.add()
        san.san_type = _URI if "://" in name else _DNS
        san.matcher.exact = name


def secrets_of(tls: Tls | None) -> tuple[Name, ...]:
    """The secrets that a rule's TLS needs at the proxy."""
    if tls is None or not tls.credential or tls.mode not in (TlsMode.SIMPLE, TlsMode.MUTUAL):
        return ()
    names = [credential_authority(tls.credential)]
    if tls.mode is TlsMode.MUTUAL:
        names.append(credential_secret(tls.credential))
    return tuple(Name(TypeUrl.SECRET, name) for name in names)


def credential_secret(credential: str) -> str:
    """The name over SDS of a Secret's certificate and key; Istio's."""
    return f"kubernetes://{credential}"


def credential_authority(credential: str) -> str:
    """The same for the authority that verifies the other side; Istio's."""
    return f"kubernetes://{credential}-cacert"


def begin_with_proxy_header(socket: Any, version: ProxyHeader | None) -> None:
    """Wrap a ``TransportSocket`` (an empty one: no TLS), so that connections begin with the PROXY header."""
    if version is None:
        return
    wrapper = upstream_proxy_protocol_pb2.ProxyProtocolUpstreamTransport()
    wrapper.config.version = _PROXY_VERSIONS[version]
    if socket.name:
        wrapper.transport_socket.CopyFrom(socket)
    else:
        raw_buffer(wrapper.transport_socket)
    socket.name = _PROXY
    pb.pack(socket.typed_config, wrapper)


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
