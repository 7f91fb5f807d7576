"""Istio's Gateway: what is refused, and why."""

from __future__ import annotations

import pytest

from tests.support.documents import findings_of, spec_of


def server(
    port: str = "{number: 443, name: https, protocol: HTTPS}", hosts: str = "['*']", more: str = ""
) -> str:
    return f"servers:\n- port: {port}\n  hosts: {hosts}\n" + (f"  {more}\n" if more else "")


def tls(text: str) -> str:
    return server(more=f"tls: {{{text}}}")


@pytest.mark.parametrize(
    "spec",
    [
        server("{number: 80, name: http, protocol: http}"),
        server(
            "{number: 80, name: http, protocol: GRPC-Web}", "['./a.example', 'ns/*.b.example', '*/c.example']"
        ),
        server("{number: 80, name: http, protocol: HTTP}", more="tls: {httpsRedirect: true}"),
        tls("mode: SIMPLE, credentialName: cert"),
        tls("mode: SIMPLE, credentialNames: [rsa, ecdsa]"),
        tls("mode: SIMPLE, serverCertificate: /a.pem, privateKey: /a.key"),
        tls("mode: SIMPLE, tlsCertificates: [{serverCertificate: /a.pem, privateKey: /a.key}]"),
        tls("mode: MUTUAL, serverCertificate: /a.pem, privateKey: /a.key, caCertificates: /ca.pem"),
        tls("mode: ISTIO_MUTUAL"),
        tls("mode: PASSTHROUGH"),
    ],
)
def test_what_is_right(spec: str) -> None:
    assert spec_of("Gateway", spec).servers


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("selector: {a: b}", "spec.servers: is missing"),
        ("servers: []", "spec.servers: is too short"),
        (server(hosts="[]"), "hosts: is too short"),
        (server(hosts="['a/b/c']"), "must be HOST or NAMESPACE/HOST"),
        (server("{number: 80, name: x, protocol: SMTP}"), "protocol: is SMTP; it must be one of"),
        (server("{number: 0, name: x, protocol: TCP}"), "number: is 0"),
        (server(), "tls: is missing; a port with HTTPS needs it"),
        (
            server("{number: 80, name: x, protocol: TCP}", more="tls: {mode: SIMPLE, credentialName: a}"),
            "the protocol is TLS then",
        ),
        (
            server("{number: 80, name: x, protocol: HTTP}", more="tls: {mode: SIMPLE, credentialName: a}"),
            "the protocol is HTTPS then",
        ),
        (tls("mode: SIMPLE"), "serverCertificate: is missing; mode SIMPLE needs it, or credentialName"),
        (tls("mode: MUTUAL, serverCertificate: /a, privateKey: /b"), "caCertificates: is missing"),
        (tls("mode: ISTIO_MUTUAL, credentialName: a"), "beside which no certificate may be named"),
        (
            tls("mode: SIMPLE, credentialName: a, credentialNames: [b]"),
            "must not stand beside credentialName",
        ),
        (tls("mode: SIMPLE, credentialNames: [a, b, c]"), "has 3 items; at most 2 are allowed"),
        (
            tls("mode: SIMPLE, credentialName: a, minProtocolVersion: TLSV1_3, maxProtocolVersion: TLSV1_2"),
            "below minProtocolVersion",
        ),
        (tls("mode: SIMPLE, credentialName: a, cipherSuites: [ROT13]"), "is ROT13, which is no cipher suite"),
        (tls("mode: MUTUAL, credentialName: a, caCrl: /crl.pem"), "caCrl: is a file"),
        (tls("mode: MUTUAL, credentialName: a, caCertificates: /ca.pem"), "put it there as ca.crt"),
        (tls("mode: SIMPLE, credentialName: a, subjectAltNames: [x]"), "mode SIMPLE doesn't ask for"),
        (tls("mode: SIMPLE, credentialName: a, verifyCertificateSpki: [x]"), "SHA-256 of a public key"),
        (tls("mode: SIMPLE, credentialName: a, verifyCertificateHash: [x]"), "SHA-256 of a certificate"),
        (server("{number: 80, name: x, protocol: HTTP}", more="bind: unix:///x"), "bind: is 'unix:///x'"),
        (
            server("{number: 80, name: x, protocol: HTTP}")
            + server("{number: 81, name: x, protocol: HTTP}").removeprefix("servers:\n"),
            "name: is x, which is there already",
        ),
        (
            server("{number: 80, name: x, protocol: HTTP}", more="defaultEndpoint: 127.0.0.1:80"),
            "is not supported",
        ),
    ],
)
def test_what_is_wrong(spec: str, said: str) -> None:
    assert any(said in each for each in findings_of("Gateway", spec)), findings_of("Gateway", spec)
