"""Which DestinationRule holds, and what it says."""

from __future__ import annotations

from retia.policy.traffic import Algorithm, HashKind, TlsMode, TrafficPolicy, traffic_policy
from tests.support.world import World, fqdn

RANDOM = "{loadBalancer: {simple: RANDOM}}"
ROUND_ROBIN = "{loadBalancer: {simple: ROUND_ROBIN}}"


def rule(
    policy: str, *, name: str = "rule", namespace: str = "default", host: str = "", more: str = ""
) -> str:
    return f"""
kind: DestinationRule
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  host: {host or fqdn("reviews")}
  trafficPolicy: {policy}
{more}"""


def policy_of(
    *rules: str, client: str = "default", subset: str = "", port: int = 9080
) -> TrafficPolicy | None:
    world = World().service("reviews", versions=("v1", "v2"))
    for text in rules:
        world.apply(text)
    return traffic_policy(world.client("client", client).view, (fqdn("reviews"), port, subset))


def algorithm(*rules: str, **more: object) -> Algorithm:
    policy = policy_of(*rules, **more)  # type: ignore[arg-type]
    assert policy is not None
    return policy.balancing.algorithm


def test_without_a_rule_the_defaults_hold() -> None:
    assert policy_of() == TrafficPolicy()
    assert policy_of(subset="v1") is None


def test_the_clients_namespace_goes_before_the_services_and_that_before_the_root() -> None:
    root = rule("{loadBalancer: {simple: LEAST_REQUEST}}", namespace="istio-system")
    service = rule(RANDOM)
    client = rule(ROUND_ROBIN, namespace="other")

    assert algorithm(root, service, client, client="other") is Algorithm.ROUND_ROBIN
    assert algorithm(root, service, client="other") is Algorithm.RANDOM
    assert algorithm(root, client="other") is Algorithm.LEAST_REQUEST


def test_a_rule_of_a_third_namespace_does_not_hold() -> None:
    assert policy_of(rule(RANDOM, namespace="third"), client="other") == TrafficPolicy()


def test_a_rule_that_is_not_exported_holds_in_its_own_namespace_only() -> None:
    private = rule(RANDOM, more="  exportTo: ['.']")

    assert algorithm(private) is Algorithm.RANDOM
    assert policy_of(private, client="other") == TrafficPolicy()


def test_an_exact_host_goes_before_a_wildcard() -> None:
    wide = rule(RANDOM, name="wide", host='"*.default.svc.cluster.local"')

    assert algorithm(wide, rule(ROUND_ROBIN)) is Algorithm.ROUND_ROBIN
    assert algorithm(wide) is Algorithm.RANDOM


def test_a_subsets_groups_replace_the_rules_groups() -> None:
    text = rule(
        "{loadBalancer: {simple: RANDOM}, outlierDetection: {consecutive5xxErrors: 3}}",
        more="""  subsets:
  - name: v1
    labels: {version: v1}
    trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}""",
    )

    policy = policy_of(text, subset="v1")

    assert policy is not None
    assert policy.balancing.algorithm is Algorithm.ROUND_ROBIN
    assert policy.outlier is not None
    assert policy.outlier.consecutive_5xx == 3
    assert policy.labels == (("version", "v1"),)


def test_a_ports_settings_replace_all_groups() -> None:
    text = rule("""
    outlierDetection: {consecutive5xxErrors: 3}
    portLevelSettings: [{port: {number: 9080}, loadBalancer: {simple: RANDOM}}]""")

    policy = policy_of(text)
    other = policy_of(text, port=1)

    assert policy is not None
    assert other is not None
    assert (policy.balancing.algorithm, policy.outlier) == (Algorithm.RANDOM, None)
    assert other.outlier is not None


def test_rules_for_one_host_are_merged_the_oldest_first() -> None:
    first = rule(RANDOM, more="  subsets: [{name: v1, labels: {version: v1}}]")
    second = rule(
        ROUND_ROBIN,
        name="second",
        more="  subsets: [{name: v1, labels: {version: x}}, {name: v2, labels: {version: v2}}]",
    )

    v1, v2 = policy_of(first, second, subset="v1"), policy_of(first, second, subset="v2")

    assert v1 is not None
    assert v2 is not None
    assert v1.labels == (("version", "v1"),)
    assert v2.labels == (("version", "v2"),)
    assert v2.balancing.algorithm is Algorithm.RANDOM


def test_what_shaped_a_policy_is_kept() -> None:
    policy = policy_of(rule(RANDOM, more="  subsets: [{name: v1}]"), subset="v1")

    assert policy is not None
    assert [(str(p.ref), p.field) for p in policy.provenance] == [
        ("DestinationRule/default/rule", "spec.trafficPolicy.loadBalancer"),
        ("DestinationRule/default/rule", "spec.subsets[0]"),
    ]


def test_every_setting_is_read() -> None:
    policy = policy_of(
        rule("""
    loadBalancer:
      consistentHash: {httpCookie: {name: user, path: /, ttl: 10s}, ringHash: {minimumRingSize: 2048}}
    connectionPool:
      tcp: {maxConnections: 7, connectTimeout: 250ms, tcpKeepalive: {time: 60s, interval: 5s, probes: 3}}
      http: {http1MaxPendingRequests: 3, http2MaxRequests: 4, maxRequestsPerConnection: 5, maxRetries: 6}
    outlierDetection:
      {consecutiveGatewayErrors: 2, interval: 1s, baseEjectionTime: 5s, maxEjectionPercent: 50}
    tls: {mode: SIMPLE, sni: api.example, subjectAltNames: [a]}""")
    )

    assert policy is not None
    assert policy.balancing.algorithm is Algorithm.RING_HASH
    assert policy.balancing.ring_size == 2048
    assert policy.balancing.hash_on is not None
    assert (policy.balancing.hash_on.kind, policy.balancing.hash_on.ttl_s) == (HashKind.COOKIE, 10.0)
    assert (policy.tcp.max_connections, policy.tcp.connect_timeout_s) == (7, 0.25)
    assert policy.tcp.keepalive == (3, 60, 5)
    assert (policy.http.max_pending_requests, policy.http.max_requests) == (3, 4)
    assert (policy.http.max_requests_per_connection, policy.http.max_retries) == (5, 6)
    assert policy.outlier is not None
    assert (policy.outlier.consecutive_gateway_errors, policy.outlier.max_ejection_percent) == (2, 50)
    assert policy.tls is not None
    assert (policy.tls.mode, policy.tls.sni, policy.tls.names) == (TlsMode.SIMPLE, "api.example", ("a",))


def test_a_rule_for_some_callers_holds_for_them_only() -> None:
    chosen = rule(RANDOM, more="  workloadSelector: {matchLabels: {app: reviews}}")
    world = World().service("reviews").apply(chosen)

    mine = traffic_policy(world.client("reviews").view, (fqdn("reviews"), 9080, ""))
    others = traffic_policy(world.client("stranger").view, (fqdn("reviews"), 9080, ""))

    assert mine is not None
    assert mine.balancing.algorithm is Algorithm.RANDOM
    assert others == TrafficPolicy()
