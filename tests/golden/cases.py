"""The worlds of the golden files. A case's name says what it is about."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from retia.model.mesh import Upstream
from retia.model.resource import Built, Name, TypeUrl
from tests.support.world import Mesh, World, fqdn

SUBSETS = """
    kind: DestinationRule
    metadata: {name: reviews}
    spec:
      host: reviews
      subsets:
      - {name: v1, labels: {version: v1}}
      - {name: v2, labels: {version: v2}}
"""


@dataclass(frozen=True)
class Case:
    """What one proxy is told after these requests."""

    name: str
    mesh: Callable[[], Mesh]
    requests: tuple[str, ...] = ()
    clusters: tuple[str, ...] = ()
    listeners: bool = False

    def results(self) -> list[tuple[Name, Built]]:
        mesh = self.mesh()
        found: dict[Name, Built] = {}
        queue = [Name(TypeUrl.VIRTUAL_HOST, name) for name in self.requests]
        queue += [Name(TypeUrl.CLUSTER, name) for name in self.clusters]
        if self.listeners:
            queue += [Name(TypeUrl.LISTENER, name) for name in mesh.listed(TypeUrl.LISTENER)]
        while queue:
            name = queue.pop()
            if name not in found:
                found[name] = mesh.get(name)
                queue += found[name].refs
        return sorted(found.items(), key=lambda item: (item[0].type.short, item[0].name))


def _plain() -> Mesh:
    return World().service("reviews", versions=("v1", "v2")).client("reviews")


def _routes() -> Mesh:
    world = World().service("reviews", versions=("v1", "v2")).service("ratings").apply(SUBSETS)
    world.apply("""
        kind: VirtualService
        metadata: {name: reviews}
        spec:
          hosts: [reviews]
          http:
          - name: jason
            match:
            - {headers: {end-user: {exact: jason}}, uri: {prefix: /api}}
            - {queryParams: {debug: {}}, method: {regex: "GET|HEAD"}}
            route: [{destination: {host: reviews, subset: v2}}]
            timeout: 2s
            retries: {attempts: 3, perTryTimeout: 500ms, retryOn: "5xx,429"}
          - name: fault
            match: [{uri: {exact: /slow}}]
            fault: {delay: {fixedDelay: 1s, percentage: {value: 50}}}
            mirror: {host: ratings}
            headers: {request: {set: {x-team: a}}, response: {remove: [server]}}
            route:
            - {destination: {host: reviews, subset: v1}, weight: 90}
            - {destination: {host: reviews, subset: v2}, weight: 10}
          - name: moved
            match: [{uri: {prefix: /old}}]
            redirect: {uri: /new, redirectCode: 302}
          - name: rewritten
            match: [{uri: {regex: "/v[0-9]+/.*"}}]
            rewrite: {uriRegexRewrite: {match: "^/v[0-9]+/(.*)", rewrite: "/\\\\1"}}
            route: [{destination: {host: ratings}}]
          - name: missing
            route: [{destination: {host: reviews, subset: v9}}]
    """)
    return world.client("ratings")


def _traffic() -> Mesh:
    world = (
        World()
        .service("reviews", versions=("v1", "v2"))
        .apply("""
        kind: DestinationRule
        metadata: {name: reviews}
        spec:
          host: reviews
          trafficPolicy:
            loadBalancer: {consistentHash: {httpHeaderName: x-user}}
            connectionPool: {tcp: {maxConnections: 10}, http: {maxRequestsPerConnection: 100}}
            outlierDetection: {consecutive5xxErrors: 3, interval: 1s, baseEjectionTime: 5s}
          subsets: [{name: v1, labels: {version: v1}, trafficPolicy: {loadBalancer: {simple: RANDOM}}}]
    """)
    )
    return world.client()


def _inbound(policy: str = "", *, http_inbound: bool = False) -> Mesh:
    world = World().service("reviews", http_inbound=http_inbound)
    if policy:
        world.apply(f"kind: PeerAuthentication\nmetadata: {{name: pa}}\nspec: {policy}")
    return world.client("reviews")


def _tcp() -> Mesh:
    return World().service("db", 5432, "tcp").client()


def _tcp_rules() -> Mesh:
    world = World().service("db", 5432, "tcp", versions=("v1", "v2")).service("spare", 5432, "tcp")
    return world.apply("""
        kind: VirtualService
        metadata: {name: db}
        spec:
          hosts: [db, "*.example.com"]
          tls:
          - match: [{sniHosts: ["*.example.com"]}]
            route: [{destination: {host: spare}}]
          tcp:
          - route:
            - {destination: {host: db}, weight: 9}
            - {destination: {host: spare}, weight: 1}
    """).client()


def _joined() -> Mesh:
    """Two objects for one host, of which the older has a rule for every request."""
    return (
        World()
        .service("reviews")
        .apply("""
        kind: VirtualService
        metadata: {name: older}
        spec:
          hosts: [reviews]
          http: [{route: [{destination: {host: reviews}}], corsPolicy: {allowOrigins: [{exact: a}]}}]
        ---
        kind: VirtualService
        metadata: {name: younger}
        spec:
          hosts: [reviews]
          http: [{match: [{uri: {prefix: /a}, statPrefix: a}], directResponse: {status: 200}}]
    """)
        .client()
    )


def _explicit() -> Mesh:
    upstreams = (Upstream(9001, fqdn("reviews"), 9080), Upstream(9002, fqdn("db"), 5432))
    world = World().service("reviews").service("db", 5432, "tcp")
    return world.client(
        explicit_port=15080,
        upstreams=upstreams,
        outbound_http_port=0,
        outbound_auto_port=0,
        outbound_tcp_port=0,
        inbound_address="",
    )


def _external() -> Mesh:
    world = World().apply("""
        kind: ServiceEntry
        metadata: {name: api}
        spec:
          hosts: [api.example.com]
          ports: [{number: 80, name: http, protocol: HTTP, targetPort: 443}]
          resolution: DNS
        ---
        kind: DestinationRule
        metadata: {name: api}
        spec: {host: api.example.com, trafficPolicy: {tls: {mode: SIMPLE}}}
    """)
    return world.client()


def _limited() -> Mesh:
    world = World().service("reviews").service("ratelimit", 8081, "grpc", namespace="retia-system")
    world.apply("""
        kind: VirtualService
        metadata: {name: reviews}
        spec: {hosts: [reviews], http: [{name: all, route: [{destination: {host: reviews}}]}]}
        ---
        kind: RateLimitPolicy
        metadata: {name: reviews}
        spec:
          targetRefs:
          - {kind: Service, name: reviews}
          - {kind: VirtualService, name: reviews, sectionName: all}
          limits:
          - {name: all, requests: 100, per: Minute}
          - name: user
            scope: Global
            requests: 10
            when: [{path: {value: /api}}]
            by: [{type: Header, name: x-user}]
        ---
        kind: OverloadPolicy
        metadata: {name: reviews}
        spec:
          targetRefs: [{kind: Service, name: reviews}]
          retryBudget: {}
          adaptiveConcurrency: {}
          admissionControl: {}
          priority: {maxConcurrency: 10, critical: [{method: POST}]}
    """)
    return world.client("reviews")


def _remote() -> World:
    world = World().service("reviews", versions=("v1", "v2"), host="there", gateway="192.0.2.7:15443")
    return world.service("reviews")


CASES = (
    Case("service-plain", _plain, ("9080/reviews",), listeners=True),
    Case("routing-rules", _routes, ("9080/reviews",)),
    Case("traffic-policy", _traffic, ("9080/reviews",), (f"outbound|9080|v1|{fqdn('reviews')}",)),
    Case("dialled-endpoint", _plain, ("9080/127.64.0.2:9080",)),
    Case("dialled-tcp", _tcp, (), ("tcp|240.240.0.1:5432", "tcp|127.64.0.1:5432", "tcp|192.0.2.1:1")),
    Case("dialled-tcp-by-rules", _tcp_rules, (), ("tcp|240.240.0.1:5432",)),
    Case("joined-rules", _joined, ("9080/reviews",)),
    Case("unknown-host", _plain, ("9080/example.com", "9080/_")),
    Case("inbound-strict", lambda: _inbound("{mtls: {mode: STRICT}}"), listeners=True),
    Case("inbound-http", lambda: _inbound(http_inbound=True), listeners=True),
    Case("limits", _limited, ("9080/reviews",), listeners=True),
    Case("explicit", _explicit, ("explicit/reviews:9080", "explicit/example.com"), listeners=True),
    Case("external-tls", _external, ("80/api.example.com",)),
    Case("other-host", lambda: _remote().client("reviews"), ("9080/reviews",)),
    Case(
        "host-gateway",
        lambda: _remote().gateway("there"),
        (),
        (f"outbound_.9080_._.{fqdn('reviews')}", "PassthroughCluster"),
        listeners=True,
    ),
)
