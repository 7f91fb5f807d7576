"""DestinationRule: Istio's rules, one wrong thing at a time."""

# ruff: noqa: E501 - messages stand whole, so that they can be searched for

from __future__ import annotations

import pytest

from retia.config.schema.load_balancer import SimpleLB
from tests.support.documents import findings_of, spec_of

CALM = "outlierDetection: {}"


def policy(text: str) -> list[str]:
    """What is said about one ``trafficPolicy`` (a flow mapping without its braces)."""
    said = findings_of("DestinationRule", f"host: a\ntrafficPolicy: {{{text}}}")
    return [each.removeprefix("spec.trafficPolicy").removeprefix(".") for each in said]


def test_everything_that_is_applied_is_read() -> None:
    spec = spec_of(
        "DestinationRule",
        """
        host: reviews
        trafficPolicy:
          loadBalancer: {simple: ROUND_ROBIN}
          connectionPool:
            tcp:
              maxConnections: 100
              connectTimeout: 30ms
              tcpKeepalive: {probes: 3, time: 7200s, interval: 75s}
            http:
              http1MaxPendingRequests: 1
              http2MaxRequests: 2
              maxRequestsPerConnection: 3
              maxRetries: 4
              idleTimeout: 5s
              h2UpgradePolicy: UPGRADE
              maxConcurrentStreams: 6
              http2KeepAlive: {interval: 10s, timeout: 1s}
          outlierDetection:
            consecutive5xxErrors: 7
            consecutiveGatewayErrors: 0
            interval: 5m
            baseEjectionTime: 15m
            maxEjectionPercent: 100
            minHealthPercent: 0
            splitExternalLocalOriginErrors: true
            consecutiveLocalOriginFailures: 2
          tls: {mode: ISTIO_MUTUAL}
          portLevelSettings:
          - port: {number: 80}
            loadBalancer:
              consistentHash:
                httpCookie: {name: user, ttl: 0s, path: /, attributes: [{name: SameSite, value: Strict}]}
                maglev: {tableSize: 65537}
        subsets:
        - name: v1
          labels: {version: v1}
          trafficPolicy: {loadBalancer: {consistentHash: {useSourceIp: true, ringHash: {minimumRingSize: 8}}}}
        exportTo: ["*"]
        """,
    )
    pool = spec.traffic_policy.connection_pool
    assert (pool.tcp.connect_timeout, pool.http.http2_keep_alive.interval) == (0.03, 10.0)
    assert spec.traffic_policy.load_balancer.simple is SimpleLB.ROUND_ROBIN
    assert spec.traffic_policy.outlier_detection.consecutive_5xx_errors == 7
    assert spec.subset("v1").labels == (("version", "v1"),)
    assert spec.subset("v2") is None
    assert hash(spec)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", ": must have at least one setting"),
        ("connectionPool: {}", "connectionPool: must have tcp or http"),
        (
            "connectionPool: {tcp: {maxConnections: -1}}",
            "connectionPool.tcp.maxConnections: is -1; it must be 0 or more",
        ),
        (
            "connectionPool: {http: {h2UpgradePolicy: UPGRADE, useClientProtocol: true}}",
            "connectionPool.http.useClientProtocol: must not be true where h2UpgradePolicy is UPGRADE",
        ),
        (
            "connectionPool: {http: {http2KeepAlive: {interval: 1s}}}",
            "connectionPool.http.http2KeepAlive.timeout: is missing",
        ),
        (
            "loadBalancer: {simple: FASTEST}",
            "loadBalancer.simple: is FASTEST; it must be one of UNSPECIFIED, LEAST_CONN, RANDOM, PASSTHROUGH, "
            "ROUND_ROBIN, LEAST_REQUEST",
        ),
        (
            "loadBalancer: {simple: RANDOM, consistentHash: {useSourceIp: true}}",
            "loadBalancer.consistentHash: must not stand beside simple: simple and consistentHash exclude one another",
        ),
        (
            "loadBalancer: {consistentHash: {}}",
            "loadBalancer.consistentHash: must have one of httpHeaderName, httpCookie, useSourceIp, "
            "httpQueryParameterName",
        ),
        (
            "loadBalancer: {consistentHash: {useSourceIp: true, maglev: {tableSize: 10}}}",
            "loadBalancer.consistentHash.maglev.tableSize: is 10; it must be a prime below 5000011",
        ),
        (
            "loadBalancer: {consistentHash: {httpCookie: {name: ''}}}",
            "loadBalancer.consistentHash.httpCookie.name: is empty; it must have at least one character",
        ),
        (
            "outlierDetection: {consecutiveLocalOriginFailures: 1}",
            "outlierDetection.consecutiveLocalOriginFailures: needs splitExternalLocalOriginErrors: true",
        ),
        (
            "outlierDetection: {maxEjectionPercent: 101}",
            "outlierDetection.maxEjectionPercent: is 101; it must be 100 or less",
        ),
        ("tls: {mode: MUTUAL, privateKey: k}", "tls.clientCertificate: is missing; mode MUTUAL needs it"),
        (
            "tls: {mode: SIMPLE, insecureSkipVerify: true, caCertificates: a.pem}",
            "tls.caCertificates: must not stand beside insecureSkipVerify: true",
        ),
        (
            f"{CALM}, portLevelSettings: [{{port: {{number: 80}}}}]",
            "portLevelSettings[0]: must have at least one setting",
        ),
        (f"{CALM}, portLevelSettings: [{{{CALM}}}]", "portLevelSettings[0].port: is missing"),
        (
            f"portLevelSettings: [{{port: {{number: 80}}, {CALM}}}, {{port: {{number: 80}}, {CALM}}}]",
            "portLevelSettings[1].port.number: is 80, which is there already",
        ),
    ],
)
def test_a_policy_that_is_refused(text: str, said: str) -> None:
    assert policy(text) == [said]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("subsets: []", "spec.host: is missing"),
        ("host: a\nsubsets: [{name: v1}, {name: v1}]", "spec.subsets[1].name: is v1, which is there already"),
        (
            "host: a\nsubsets: [{name: v1, labels: {version: 1}}]",
            "spec.subsets[0].labels.version: is 1; it must be text (put it in quotes)",
        ),
        (
            "host: a_b",
            "spec.host: is a_b; it must be a host name: letters, digits and - in labels of at most 63, or * "
            "as its first label",
        ),
    ],
)
def test_a_rule_that_is_refused(text: str, said: str) -> None:
    assert findings_of("DestinationRule", text) == [said]


@pytest.mark.parametrize(
    ("locality", "field"),
    [
        ("{distribute: [{from: a, to: {b: 50}}]}", "localityLbSetting.distribute[0].to"),
        ("{distribute: [{from: a/*, to: {'*': 100}}, {from: a/b, to: {'*': 100}}]}", "distribute[1].from"),
        ("{failover: [{from: a, to: a}]}", "localityLbSetting.failover[0].to"),
        ("{failover: [{from: a, to: b/c}]}", "localityLbSetting.failover[0].to"),
    ],
)
def test_localities_are_checked(locality: str, field: str) -> None:
    said = policy(f"loadBalancer: {{localityLbSetting: {locality}}}")
    assert any(field in each for each in said)
