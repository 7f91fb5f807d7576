"""Istio ``Gateway``: ports that gateway proxies open, the hosts served there, and how TLS is ended."""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, Field, Strict

from retia.config import names
from retia.config.codes import Code
from retia.config.schema.base import Model, Problem
from retia.config.schema.types import Flag, Port, SelectorMap, Text, duplicates

PROTOCOLS = ("HTTP", "HTTPS", "GRPC", "GRPC-WEB", "HTTP2", "MONGO", "TCP", "TLS", "REDIS", "MYSQL")
TLS_PROTOCOLS = frozenset({"HTTPS", "TLS"})
HTTP_PROTOCOLS = frozenset({"HTTP", "HTTP2", "GRPC", "GRPC-WEB"})
MAX_CERTIFICATES = 2
"""Of one server: one for RSA and one for ECDSA, as in Istio."""


class ServerTLSMode(StrEnum):
    PASSTHROUGH = "PASSTHROUGH"
    SIMPLE = "SIMPLE"
    MUTUAL = "MUTUAL"
    AUTO_PASSTHROUGH = "AUTO_PASSTHROUGH"
    ISTIO_MUTUAL = "ISTIO_MUTUAL"
    OPTIONAL_MUTUAL = "OPTIONAL_MUTUAL"


class TLSProtocol(StrEnum):
    AUTO = "TLS_AUTO"
    V1_0 = "TLSV1_0"
    V1_1 = "TLSV1_1"
    V1_2 = "TLSV1_2"
    V1_3 = "TLSV1_3"


_ORDER = (TLSProtocol.V1_0, TLSProtocol.V1_1, TLSProtocol.V1_2, TLSProtocol.V1_3)

CIPHERS = frozenset(
    {
        "AES128-GCM-SHA256",
        "AES128-SHA",
        "AES256-GCM-SHA384",
        "AES256-SHA",
        "DES-CBC3-SHA",
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-AES128-SHA",
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-ECDSA-AES256-SHA",
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        "ECDHE-PSK-AES128-CBC-SHA",
        "ECDHE-PSK-AES256-CBC-SHA",
        "ECDHE-PSK-CHACHA20-POLY1305",
        "ECDHE-RSA-AES128-GCM-SHA256",
        "ECDHE-RSA-AES128-SHA",
        "ECDHE-RSA-AES256-GCM-SHA384",
        "ECDHE-RSA-AES256-SHA",
        "ECDHE-RSA-CHACHA20-POLY1305",
        "PSK-AES128-CBC-SHA",
        "PSK-AES256-CBC-SHA",
    }
)
"""Names of cipher suites up to TLS 1.2 (Istio's list, which is BoringSSL's); TLS 1.3's can't be chosen."""


def _server_host(text: str) -> str:
    namespace, slash, host = text.rpartition("/")
    if slash and namespace not in ("*", ".") and not names.is_label(namespace):
        raise ValueError('must be HOST or NAMESPACE/HOST, with "*" or "." or a namespace before the /')
    broken = names.host_rule(host, wildcard=True)
    if broken:
        raise ValueError(broken)
    return f"{namespace}{slash}{names.normal_host(host)}"


def _spki(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9+/]{43}=", text):
        raise ValueError("must be the SHA-256 of a public key in base64 (44 characters)")
    return text


def _hash(text: str) -> str:
    if not re.fullmatch(r"(?i)[0-9a-f]{64}|[0-9a-f]{2}(:[0-9a-f]{2}){31}", text):
        raise ValueError("must be the SHA-256 of a certificate in hexadecimal, with or without colons")
    return text


ServerHost = Annotated[str, Strict(), AfterValidator(_server_host)]
"""``HOST``, ``NAMESPACE/HOST``, ``./HOST`` or ``*/HOST``: from whose VirtualServices the host is served."""
SpkiHash = Annotated[str, Strict(), AfterValidator(_spki)]
CertificateHash = Annotated[str, Strict(), AfterValidator(_hash)]


class GatewayPort(Model):
    number: Port
    protocol: Text
    """In any case: ``HTTP``, ``HTTPS``, ``HTTP2``, ``GRPC``, ``GRPC-WEB``, ``TLS``, ``TCP``, ``MONGO``."""
    name: Text
    target_port: Annotated[int | None, Strict(), Field(ge=0, le=65535)] = None

    def problems(self) -> Iterator[Problem]:
        if self.kind not in PROTOCOLS:
            message = f"is {self.protocol}; it must be one of {', '.join(PROTOCOLS)}"
            yield Problem(("protocol",), message, Code.BAD_VALUE)
        if not self.name:
            yield Problem(("name",), "must not be empty", Code.BAD_VALUE)

    @property
    def kind(self) -> str:
        return self.protocol.upper()


class TLSCertificate(Model):
    """Files of the gateway's host."""

    server_certificate: Text = ""
    private_key: Text = ""
    ca_certificates: Text = ""


class ServerTLSSettings(Model):
    """How TLS is ended. File names are of the gateway's host."""

    https_redirect: Flag = False
    """On a port in plain text: answer by a redirect (301) to ``https``."""
    mode: ServerTLSMode = ServerTLSMode.PASSTHROUGH
    """Absent: TLS is passed on unopened."""
    server_certificate: Text = ""
    """A file of the gateway's host, as are the next three."""
    private_key: Text = ""
    ca_certificates: Text = ""
    """Who may have signed clients' certificates."""
    ca_crl: Text = ""
    """Which of them are revoked."""
    credential_name: Text = ""
    """A ``Secret`` of the gateway proxy's namespace."""
    credential_names: tuple[Text, ...] = ()
    """One for RSA and one for ECDSA."""
    ca_cert_credential_name: Text = ""
    """The ``Secret`` with clients' authority. Absent: ``<credentialName>-cacert``, or that secret itself."""
    tls_certificates: tuple[TLSCertificate, ...] = ()
    """Files, as above; one for RSA and one for ECDSA."""
    subject_alt_names: tuple[Text, ...] = ()
    """Names of which a client's certificate must have one. Absent: any that was signed will do."""
    verify_certificate_spki: tuple[SpkiHash, ...] = ()
    """Clients' public keys, of which one must be shown. Absent: any."""
    verify_certificate_hash: tuple[CertificateHash, ...] = ()
    """Clients' certificates, of which one must be shown. Absent: any."""
    min_protocol_version: TLSProtocol = TLSProtocol.AUTO
    """Absent: TLS 1.2."""
    max_protocol_version: TLSProtocol = TLSProtocol.AUTO
    """Absent: TLS 1.3."""
    cipher_suites: tuple[Text, ...] = ()
    """Absent: the proxy's own list."""

    def problems(self) -> Iterator[Problem]:
        yield from self._version_problems()
        for index, name in duplicates(self.cipher_suites):
            yield Problem(("cipherSuites", index), f"is {name}, which is there already", Code.BAD_VALUE)
        for index, name in enumerate(self.cipher_suites):
            if name not in CIPHERS:
                yield Problem(
                    ("cipherSuites", index), f"is {name}, which is no cipher suite known here", Code.BAD_VALUE
                )
        yield from self._credential_problems()

    def _version_problems(self) -> Iterator[Problem]:
        low, high = self.min_protocol_version, self.max_protocol_version
        if TLSProtocol.AUTO not in (low, high) and _ORDER.index(low) > _ORDER.index(high):
            message = f"is {high.value}, which is below minProtocolVersion"
            yield Problem(("maxProtocolVersion",), message, Code.BAD_VALUE)

    def _credential_problems(self) -> Iterator[Problem]:
        named = bool(self.credential_name or self.credential_names)
        files = bool(self.server_certificate or self.private_key or self.tls_certificates)
        if self.mode in (ServerTLSMode.PASSTHROUGH, ServerTLSMode.AUTO_PASSTHROUGH):
            return
        if self.mode is ServerTLSMode.ISTIO_MUTUAL:
            if named or files or self.ca_certificates:
                yield Problem(("mode",), "is ISTIO_MUTUAL, beside which no certificate may be named")
            return
        yield from self._client_problems(named)
        if self.credential_name and self.credential_names:
            yield Problem(("credentialNames",), "must not stand beside credentialName")
        if named and files:
            yield Problem(("serverCertificate",), "must not stand beside credentialName")
        if self.server_certificate and self.tls_certificates:
            yield Problem(("tlsCertificates",), "must not stand beside serverCertificate")
        for field, count in (
            ("credentialNames", len(self.credential_names)),
            ("tlsCertificates", len(self.tls_certificates)),
        ):
            if count > MAX_CERTIFICATES:
                yield Problem((field,), f"has {count} items; at most {MAX_CERTIFICATES} are allowed")
        if not named:
            yield from self._file_problems()

    def _client_problems(self, named: bool) -> Iterator[Problem]:
        """What would keep clients out must not be without effect."""
        if self.mode is ServerTLSMode.SIMPLE:
            for field, value in (
                ("subjectAltNames", self.subject_alt_names),
                ("verifyCertificateSpki", self.verify_certificate_spki),
                ("verifyCertificateHash", self.verify_certificate_hash),
                ("caCrl", self.ca_crl),
            ):
                if value:
                    yield Problem(
                        (field,), "is about clients' certificates, which mode SIMPLE doesn't ask for"
                    )
        elif named or self.ca_cert_credential_name:
            for field, value, key in (
                ("caCertificates", self.ca_certificates, "ca.crt"),
                ("caCrl", self.ca_crl, "ca.crl"),
            ):
                if value:
                    message = f"is a file, which must not stand beside a credential; put it there as {key}"
                    yield Problem((field,), message)

    def _file_problems(self) -> Iterator[Problem]:
        for index, pair in enumerate(self.tls_certificates):
            if not (pair.server_certificate and pair.private_key):
                message = "must have serverCertificate and privateKey"
                yield Problem(("tlsCertificates", index), message, Code.MISSING_FIELD)
        if not self.tls_certificates:
            for field, value in (
                ("serverCertificate", self.server_certificate),
                ("privateKey", self.private_key),
            ):
                if not value:
                    message = f"is missing; mode {self.mode.value} needs it, or credentialName"
                    yield Problem((field,), message, Code.MISSING_FIELD)
        verifies = self.mode in (ServerTLSMode.MUTUAL, ServerTLSMode.OPTIONAL_MUTUAL)
        authority = self.ca_certificates or self.ca_cert_credential_name
        if verifies and not authority and not any(pair.ca_certificates for pair in self.tls_certificates):
            message = f"is missing; mode {self.mode.value} needs it, or credentialName"
            yield Problem(("caCertificates",), message, Code.MISSING_FIELD)

    @property
    def only_redirects(self) -> bool:
        """Whether nothing but ``httpsRedirect`` is said."""
        return self.model_copy(update={"https_redirect": False}) == ServerTLSSettings()


class GatewayServer(Model):
    port: GatewayPort
    bind: Text = ""
    """The address to listen on. Absent: the gateway proxy's."""
    hosts: Annotated[tuple[ServerHost, ...], Field(min_length=1)]
    """Wildcards allowed. Before a ``/`` may stand whose VirtualServices are served: a namespace, ``.``
    or ``*``."""
    tls: ServerTLSSettings | None = None
    default_endpoint: Text = ""
    name: Text = ""
    """For people."""

    def problems(self) -> Iterator[Problem]:
        kind = self.port.kind
        if self.bind and not names.is_ip(self.bind):
            yield Problem(("bind",), f"is {self.bind!r}; it must be an IP address", Code.BAD_VALUE)
        if kind in TLS_PROTOCOLS and self.tls is None:
            yield Problem(("tls",), f"is missing; a port with {kind} needs it", Code.MISSING_FIELD)
        if self.tls is None or kind in TLS_PROTOCOLS:
            return
        if kind not in HTTP_PROTOCOLS:
            yield Problem(("tls",), f"must not be given at a port with {kind}; the protocol is TLS then")
        elif not self.tls.only_redirects:
            message = f"may only say httpsRedirect at a port with {kind}; the protocol is HTTPS then"
            yield Problem(("tls",), message)


class Gateway(Model):
    """Ports that gateway proxies open, and for which hosts; VirtualServices that name it in ``gateways`` say
    what happens there."""

    servers: Annotated[tuple[GatewayServer, ...], Field(min_length=1)]
    selector: SelectorMap = ()
    """Labels of gateway proxies. Empty: all of them."""

    def problems(self) -> Iterator[Problem]:
        for index, name in duplicates(server.port.name for server in self.servers):
            yield Problem(("servers", index, "port", "name"), f"is {name}, which is there already")
