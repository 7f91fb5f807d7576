"""TLS that a gateway ends: its certificates, and what it asks of clients."""

from __future__ import annotations

import ipaddress
from typing import Any

from envoy.extensions.transport_sockets.quic.v3 import quic_transport_pb2
from envoy.extensions.transport_sockets.tls.v3 import common_pb2, tls_pb2

from retia.model.resource import Name, TypeUrl
from retia.policy.edge.forms import EdgeProtocol, EdgeServer, EdgeTls, EdgeTlsMode, TlsVersion
from retia.translate import pb
from retia.translate.names import ALPN_H2, ALPN_L4, SECRET_OWN, SECRET_ROOT
from retia.translate.secrets import authority_secret, certificate_secret

_TLS = "envoy.transport_sockets.tls"
_QUIC = "envoy.transport_sockets.quic"
_SAN = common_pb2.SubjectAltNameMatcher
_VERSIONS = {
    TlsVersion.V1_0: common_pb2.TlsParameters.TLSv1_0,
    TlsVersion.V1_1: common_pb2.TlsParameters.TLSv1_1,
    TlsVersion.V1_2: common_pb2.TlsParameters.TLSv1_2,
    TlsVersion.V1_3: common_pb2.TlsParameters.TLSv1_3,
}
HTTP3_ALPN = "h3"
HTTP_ALPN = ("h2", "http/1.1")
DEMANDING = (EdgeTlsMode.MUTUAL, EdgeTlsMode.MESH_MUTUAL)
"""Modes in which a client without the right certificate is turned away."""


def server_context(server: EdgeServer, tls: EdgeTls, namespace: str, trust_domain: str) -> Any:
    """The ``DownstreamTlsContext`` of a server. ``namespace`` is the proxy's."""
    context = tls_pb2.DownstreamTlsContext()
    common = context.common_tls_context
    common.alpn_protocols.extend(tls.alpn or _alpn(server, tls))
    _put_parameters(common.tls_params, tls)
    if tls.mode is EdgeTlsMode.MESH_MUTUAL:
        _put_mesh(common, trust_domain, tls)
    else:
        _put_certificates(common, tls, namespace)
        _put_clients(common, tls, namespace)
    if tls.mode in DEMANDING:
        context.require_client_certificate.value = True
    return context


def quic_context(context: Any) -> Any:
    """The same for QUIC, which has TLS 1.3 and HTTP/3 only."""
    made = quic_transport_pb2.QuicDownstreamTransport()
    made.downstream_tls_context.CopyFrom(context)
    common = made.downstream_tls_context.common_tls_context
    common.ClearField("tls_params")
    del common.alpn_protocols[:]
    common.alpn_protocols.append(HTTP3_ALPN)
    return made


def put_quic(socket: Any, context: Any) -> None:
    """Fill a ``TransportSocket`` by what :func:`quic_context` made."""
    socket.name = _QUIC
    pb.pack(socket.typed_config, context)


def put_server(socket: Any, context: Any) -> None:
    """Fill a ``TransportSocket``."""
    socket.name = _TLS
    pb.pack(socket.typed_config, context)


def secrets_of(tls: EdgeTls, namespace: str) -> tuple[Name, ...]:
    """The secrets that a server needs at its proxy, besides the proxy's own."""
    found = [certificate_secret(each.secret, namespace) for each in tls.certificates if each.secret]
    if tls.authority.secret:
        found.append(authority_secret(tls.authority.secret, namespace))
    return tuple(Name(TypeUrl.SECRET, name) for name in found)


def _alpn(server: EdgeServer, tls: EdgeTls) -> tuple[str, ...]:
    http = HTTP_ALPN if server.protocol is EdgeProtocol.HTTPS else ()
    return (*http, ALPN_L4, ALPN_H2) if tls.mode is EdgeTlsMode.MESH_MUTUAL else http


def _put_parameters(params: Any, tls: EdgeTls) -> None:
    """At least TLS 1.2 where nobody says otherwise, as Istio's gateways."""
    params.tls_minimum_protocol_version = _VERSIONS.get(tls.min_version, _VERSIONS[TlsVersion.V1_2])
    if tls.min_version is TlsVersion.AUTO and tls.max_version in (TlsVersion.V1_0, TlsVersion.V1_1):
        params.tls_minimum_protocol_version = _VERSIONS[tls.max_version]
    if tls.max_version is not TlsVersion.AUTO:
        params.tls_maximum_protocol_version = _VERSIONS[tls.max_version]
    params.cipher_suites.extend(tls.ciphers)


def _put_certificates(common: Any, tls: EdgeTls, namespace: str) -> None:
    for each in tls.certificates:
        if each.secret:
            config = common.tls_certificate_sds_secret_configs.add()
            config.name = certificate_secret(each.secret, namespace)
            pb.from_ads(config.sds_config)
        else:
            own = common.tls_certificates.add()
            own.certificate_chain.filename = each.chain_file
            own.private_key.filename = each.key_file


def _put_clients(common: Any, tls: EdgeTls, namespace: str) -> None:
    """How a client's certificate is verified; with no authority none is asked for."""
    authority = tls.authority
    if authority.is_empty:
        return
    if authority.secret:
        combined = common.combined_validation_context
        config = combined.validation_context_sds_secret_config
        config.name = authority_secret(authority.secret, namespace)
        pb.from_ads(config.sds_config)
        validation = combined.default_validation_context
    else:
        validation = common.validation_context
        if authority.pem:
            validation.trusted_ca.inline_bytes = authority.pem
        else:
            validation.trusted_ca.filename = authority.file
        if authority.crl_file:
            validation.crl.filename = authority.crl_file
    _put_conditions(validation, tls)


def _put_conditions(validation: Any, tls: EdgeTls) -> None:
    for name in tls.names:
        san = validation.match_typed_subject_alt_names.add()
        san.san_type = _kind_of(name)
        san.matcher.exact = name
    validation.verify_certificate_spki.extend(tls.spki)
    validation.verify_certificate_hash.extend(tls.hashes)
    if tls.accept_untrusted:
        validation.trust_chain_verification = common_pb2.CertificateValidationContext.ACCEPT_UNTRUSTED


def _kind_of(name: str) -> Any:
    if "://" in name:
        return _SAN.URI
    if "@" in name:
        return _SAN.EMAIL
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return _SAN.DNS
    return _SAN.IP_ADDRESS


def _put_mesh(common: Any, trust_domain: str, tls: EdgeTls) -> None:
    """The proxy's own identity, and anybody of the trust domain."""
    own = common.tls_certificate_sds_secret_configs.add()
    own.name = SECRET_OWN
    pb.from_ads(own.sds_config)
    combined = common.combined_validation_context
    combined.validation_context_sds_secret_config.name = SECRET_ROOT
    pb.from_ads(combined.validation_context_sds_secret_config.sds_config)
    validation = combined.default_validation_context
    if not tls.names:
        san = validation.match_typed_subject_alt_names.add()
        san.san_type = _SAN.URI
        san.matcher.prefix = f"spiffe://{trust_domain}/"
    _put_conditions(validation, tls)
