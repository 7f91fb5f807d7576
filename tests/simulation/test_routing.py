"""What routing rules mean, asked of the generated resources."""

from __future__ import annotations

import pytest

from retia.model.resource import TypeUrl
from tests.simulation.traffic import Outcome, Request, send
from tests.support.world import World, outbound

SUBSETS = """
    kind: DestinationRule
    metadata: {name: reviews}
    spec:
      host: reviews
      subsets:
      - {name: v1, labels: {version: v1}}
      - {name: v2, labels: {version: v2}}
      - {name: v3, labels: {version: v3}}
"""


def shop(rules: str = "", **settings: object) -> World:
    """Reviews in three versions, ratings, and a client; rules for reviews."""
    world = World(**settings).service("reviews", versions=("v1", "v2", "v3")).service("ratings")
    world.service("productpage", 9090).apply(SUBSETS)
    if rules:
        world.apply(rules)
    return world


def reviews(http: str) -> str:
    """A VirtualService for reviews with these rules."""
    lines = "\n".join(f"  {line}" for line in http.strip("\n").splitlines())
    return f"kind: VirtualService\nmetadata: {{name: reviews}}\nspec:\n  hosts: [reviews]\n  http:\n{lines}"


def ask(world: World, path: str = "/", host: str = "reviews", **more: object) -> Outcome:
    return send(world.client("productpage"), Request(host, path=path, **more))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "host",
    [
        "reviews",
        "reviews:9080",
        "reviews.default",
        "reviews.default.svc",
        "reviews.default.svc.cluster.local",
        "REVIEWS.default.svc.cluster.local:9080",
        "reviews:1234",
    ],
)
def test_every_spelling_of_a_name_reaches_its_service(host: str) -> None:
    assert ask(shop(), host=host).cluster == outbound("reviews")


def test_a_virtual_address_reaches_its_service() -> None:
    world = shop()
    vip = world.snapshot().get(("service", "reviews.default.svc.cluster.local")).vip

    assert ask(world, host=vip).cluster == outbound("reviews")


def test_a_short_name_means_the_clients_own_namespace() -> None:
    world = World().service("reviews").service("reviews", namespace="other", account="theirs")

    here = send(world.client("reviews"), Request("reviews"))
    there = send(world.client("reviews", "other"), Request("reviews"))

    assert here.cluster == outbound("reviews")
    assert there.cluster == outbound("reviews", namespace="other")


def test_header_end_user_jason_goes_to_v3() -> None:
    world = shop(
        reviews("""
- match: [{headers: {end-user: {exact: jason}}}]
  route: [{destination: {host: reviews, subset: v3}}]
- route: [{destination: {host: reviews, subset: v1}}]
""")
    )

    assert ask(world, headers={"End-User": "jason"}).cluster == outbound("reviews", subset="v3")
    assert ask(world, headers={"end-user": "anne"}).cluster == outbound("reviews", subset="v1")
    assert ask(world).cluster == outbound("reviews", subset="v1")


MATCHES = [
    ("exact path", "{uri: {exact: /a}}", "/a", "/a/b"),
    ("prefix", "{uri: {prefix: /a}}", "/a/b", "/b"),
    ("regex, of the whole path", '{uri: {regex: "/a/[0-9]+"}}', "/a/17", "/a/17/x"),
    ("case ignored", "{uri: {prefix: /A}, ignoreUriCase: true}", "/a/b", "/b"),
    ("query", "{queryParams: {user: {exact: jo}}}", "/?user=jo", "/?user=al"),
    ("query is there", "{queryParams: {user: {}}}", "/?user=al", "/?other=1"),
    ("all of a block", "{uri: {prefix: /a}, queryParams: {q: {exact: '1'}}}", "/a?q=1", "/a?q=2"),
]


@pytest.mark.parametrize(("match", "yes", "no"), [m[1:] for m in MATCHES], ids=[m[0] for m in MATCHES])
def test_a_match_takes_some_paths_and_leaves_others(match: str, yes: str, no: str) -> None:
    world = shop(
        reviews(f"""
- match: [{match}]
  route: [{{destination: {{host: reviews, subset: v2}}}}]
- route: [{{destination: {{host: reviews, subset: v1}}}}]
""")
    )

    assert ask(world, yes).cluster == outbound("reviews", subset="v2")
    assert ask(world, no).cluster == outbound("reviews", subset="v1")


@pytest.mark.parametrize(
    ("match", "yes", "no"),
    [
        ("{method: {exact: POST}}", {"method": "POST"}, {"method": "GET"}),
        ("{headers: {x: {prefix: ab}}}", {"headers": {"x": "abc"}}, {"headers": {"x": "b"}}),
        ("{headers: {x: {}}}", {"headers": {"x": "1"}}, {}),
        ("{withoutHeaders: {x: {}}}", {}, {"headers": {"x": "1"}}),
        ("{withoutHeaders: {x: {exact: a}}}", {"headers": {"x": "b"}}, {"headers": {"x": "a"}}),
        ("{withoutHeaders: {x: {exact: a}}}", {}, {"headers": {"x": "a"}}),
        ("{authority: {prefix: reviews.default}}", {"host": "reviews.default"}, {"host": "reviews"}),
        ("{port: 9080}", {}, None),
        ("{port: 1}", None, {}),
        ("{sourceNamespace: default}", {}, None),
        ("{sourceNamespace: elsewhere}", None, {}),
        ("{sourceLabels: {app: productpage}}", {}, None),
        ("{sourceLabels: {app: stranger}}", None, {}),
        ("{gateways: [mesh]}", {}, None),
        ("{gateways: [ingress]}", None, {}),
    ],
)
def test_a_match_looks_at_more_than_the_path(
    match: str, yes: dict[str, object] | None, no: dict[str, object] | None
) -> None:
    world = shop(
        reviews(f"""
- match: [{match}]
  route: [{{destination: {{host: reviews, subset: v2}}}}]
- route: [{{destination: {{host: reviews, subset: v1}}}}]
""")
    )

    if yes is not None:
        assert ask(world, **yes).cluster == outbound("reviews", subset="v2")  # type: ignore[arg-type]
    if no is not None:
        assert ask(world, **no).cluster == outbound("reviews", subset="v1")  # type: ignore[arg-type]


def test_any_of_several_blocks_is_enough() -> None:
    world = shop(
        reviews("""
- match: [{uri: {exact: /a}}, {uri: {exact: /b}}]
  route: [{destination: {host: reviews, subset: v2}}]
""")
    )

    assert ask(world, "/a").cluster == ask(world, "/b").cluster == outbound("reviews", subset="v2")
    assert ask(world, "/c").status == 404


def test_the_first_matching_rule_counts() -> None:
    world = shop(
        reviews("""
- route: [{destination: {host: reviews, subset: v1}}]
- match: [{uri: {exact: /a}}]
  route: [{destination: {host: reviews, subset: v2}}]
""")
    )

    assert ask(world, "/a").cluster == outbound("reviews", subset="v1")


def test_weights_split_requests() -> None:
    world = shop(
        reviews("""
- route:
  - {destination: {host: reviews, subset: v1}, weight: 90}
  - {destination: {host: reviews, subset: v2}, weight: 10}
  - {destination: {host: reviews, subset: v3}, weight: 0}
""")
    )

    shares = ask(world).shares

    assert shares == {outbound("reviews", subset="v1"): 0.9, outbound("reviews", subset="v2"): 0.1}


def test_a_rule_may_send_to_another_service() -> None:
    world = shop(reviews("- route: [{destination: {host: ratings.default.svc.cluster.local}}]"))

    assert ask(world).cluster == outbound("ratings")


def test_a_missing_subset_answers_503_and_is_said() -> None:
    world = shop(reviews("- route: [{destination: {host: reviews, subset: v9}}]"))
    built = world.client("productpage").built(TypeUrl.VIRTUAL_HOST, "9080/reviews")

    assert ask(world).status == 503
    assert [f.code for f in built.findings] == ["RT0302"]
    assert built.findings[0].field == "spec.http[0].route[0].destination"


def test_a_destination_that_is_no_service_answers_503_and_is_said() -> None:
    world = shop(reviews("- route: [{destination: {host: nowhere}}]"))
    built = world.client("productpage").built(TypeUrl.VIRTUAL_HOST, "9080/reviews")

    assert ask(world).status == 503
    assert [f.code for f in built.findings] == ["RT0301"]


def test_timeout_and_its_absence() -> None:
    with_timeout = ask(shop(reviews("- {timeout: 1500ms, route: [{destination: {host: reviews}}]}")))

    assert with_timeout.timeout_s == 1.5
    assert ask(shop()).timeout_s == 0


def test_every_delivered_route_switches_the_idle_timeout_off() -> None:
    """Otherwise the bound on hanging first requests would cut slow answers."""
    for world in (shop(), shop(reviews("- {timeout: 9s, route: [{destination: {host: reviews}}]}"))):
        for host in ("reviews", "somewhere.else"):
            assert ask(world, host=host).action.HasField("idle_timeout")


def test_retries_by_default_and_by_rule() -> None:
    default = ask(shop()).action.retry_policy
    ruled = ask(
        shop(
            reviews("""
- retries: {attempts: 5, perTryTimeout: 200ms, retryOn: "gateway-error,503", backoff: 10ms}
  route: [{destination: {host: reviews}}]
""")
        )
    ).action.retry_policy
    none = ask(shop(reviews("- {retries: {attempts: 0}, route: [{destination: {host: reviews}}]}")))

    assert default.num_retries.value == 2
    assert default.retry_on == "connect-failure,refused-stream,unavailable,cancelled"
    assert ruled.num_retries.value == 5
    assert ruled.retry_on == "gateway-error,retriable-status-codes"
    assert list(ruled.retriable_status_codes) == [503]
    assert ruled.per_try_timeout.nanos == 200_000_000
    assert ruled.retry_back_off.base_interval.nanos == 10_000_000
    assert not none.action.HasField("retry_policy")


def test_faults_delay_and_abort_their_share() -> None:
    world = shop(
        reviews("""
- fault:
    delay: {fixedDelay: 2s, percentage: {value: 12.5}}
    abort: {httpStatus: 418, percentage: {value: 100}}
  route: [{destination: {host: reviews}}]
""")
    )

    fault = ask(world).fault

    assert fault.delay.fixed_delay.seconds == 2
    assert fault.delay.percentage.numerator == 125_000
    assert fault.abort.http_status == 418
    assert fault.abort.percentage.numerator == 1_000_000


def test_a_fault_without_a_share_has_no_effect_and_is_said() -> None:
    world = shop(reviews("- {fault: {abort: {httpStatus: 500}}, route: [{destination: {host: reviews}}]}"))
    built = world.client("productpage").built(TypeUrl.VIRTUAL_HOST, "9080/reviews")

    assert ask(world).fault is None
    assert [f.field for f in built.findings] == ["spec.http[0].fault.abort"]


def test_the_fault_filter_is_in_the_chain_only_where_a_rule_injects_faults() -> None:
    from tests.simulation.traffic import _manager_of

    faulty = shop(
        reviews("""
- fault: {abort: {httpStatus: 500, percentage: {value: 1}}}
  route: [{destination: {host: reviews}}]
""")
    )

    def filters(world: World) -> list[str]:
        return [
            f.name.rpartition(".")[2] for f in _manager_of(world.client("productpage"), 9080).http_filters
        ]

    assert filters(shop()) == ["on_demand", "router"]
    assert filters(faulty) == ["on_demand", "fault", "router"]


def test_mirrors_get_copies() -> None:
    world = shop(
        reviews("""
- mirror: {host: reviews, subset: v2}
  mirrorPercentage: {value: 20}
  route: [{destination: {host: reviews, subset: v1}}]
""")
    )

    (mirror,) = ask(world).action.request_mirror_policies

    assert mirror.cluster == outbound("reviews", subset="v2")
    assert mirror.runtime_fraction.default_value.numerator == 200_000


def test_the_cluster_of_a_mirror_comes_with_the_virtual_host() -> None:
    world = shop(reviews("- {mirror: {host: ratings}, route: [{destination: {host: reviews}}]}"))
    built = world.client("productpage").built(TypeUrl.VIRTUAL_HOST, "9080/reviews")

    assert [ref.name for ref in built.refs] == [outbound("ratings"), outbound("reviews")]


def test_headers_are_changed_for_the_rule_and_for_one_destination() -> None:
    world = shop(
        reviews("""
- headers: {request: {set: {x-a: "1"}, add: {x-b: "2"}, remove: [x-c]}, response: {set: {x-d: "3"}}}
  route:
  - {destination: {host: reviews, subset: v1}, weight: 50, headers: {response: {add: {x-e: "4"}}}}
  - {destination: {host: reviews, subset: v2}, weight: 50}
""")
    )

    route = ask(world).route
    first = route.route.weighted_clusters.clusters[0]

    assert [(h.header.key, h.header.value) for h in route.request_headers_to_add] == [
        ("x-a", "1"),
        ("x-b", "2"),
    ]
    assert list(route.request_headers_to_remove) == ["x-c"]
    assert [h.header.key for h in route.response_headers_to_add] == ["x-d"]
    assert [h.header.key for h in first.response_headers_to_add] == ["x-e"]


def test_setting_the_host_header_rewrites_the_authority() -> None:
    world = shop(
        reviews("- {headers: {request: {set: {Host: other}}}, route: [{destination: {host: reviews}}]}")
    )

    outcome = ask(world)

    assert outcome.action.host_rewrite_literal == "other"
    assert not outcome.route.request_headers_to_add


def test_redirect_rewrite_and_direct_response() -> None:
    world = shop(
        reviews("""
- match: [{uri: {exact: /old}}]
  redirect: {uri: /new, authority: other.example, redirectCode: 308}
- match: [{uri: {exact: /teapot}}]
  directResponse: {status: 418, body: {string: short and stout}}
- match: [{uri: {prefix: /api/}}]
  rewrite: {uri: /, authority: inner}
  route: [{destination: {host: reviews}}]
""")
    )

    moved, teapot, api = ask(world, "/old"), ask(world, "/teapot"), ask(world, "/api/x")

    assert (moved.status, moved.route.redirect.path_redirect) == (308, "/new")
    assert moved.route.redirect.host_redirect == "other.example"
    assert (teapot.status, teapot.route.direct_response.body.inline_bytes) == (418, b"short and stout")
    assert (api.action.prefix_rewrite, api.action.host_rewrite_literal) == ("/", "inner")


def test_a_consistent_hash_reaches_the_route() -> None:
    world = World().service("reviews").service("productpage", 9090)
    world.apply("""
        kind: DestinationRule
        metadata: {name: reviews}
        spec:
          host: reviews
          trafficPolicy: {loadBalancer: {consistentHash: {httpHeaderName: x-user}}}
    """)

    (hash_policy,) = ask(world).action.hash_policy

    assert hash_policy.header.header_name == "x-user"


def test_the_most_specific_host_wins() -> None:
    world = shop()
    for name, host in (
        ("wide", '"*.default.svc.cluster.local"'),
        ("exact", "reviews.default.svc.cluster.local"),
        ("wider", '"*.svc.cluster.local"'),
    ):
        world.apply(f"""
            kind: VirtualService
            metadata: {{name: {name}}}
            spec:
              hosts: [{host}]
              http: [{{name: {name}, directResponse: {{status: 200}}}}]
        """)

    assert ask(world).route.name == "exact"
    assert ask(world, host="ratings").route.name == "wide"


def test_the_oldest_object_for_a_host_wins_and_the_other_is_said() -> None:
    world = shop(reviews("- {name: first, directResponse: {status: 200}}"))
    world.apply(
        reviews("- {name: second, directResponse: {status: 201}}").replace("name: reviews}", "name: late}")
    )
    built = world.client("productpage").built(TypeUrl.VIRTUAL_HOST, "9080/reviews")

    assert ask(world).route.name == "first"
    assert [(f.code, f.ref.name) for f in built.findings if f.ref] == [("RT0304", "late")]


def test_an_object_that_is_not_exported_is_not_seen_elsewhere() -> None:
    world = shop(reviews("- directResponse: {status: 418}").replace("hosts:", "exportTo: ['.']\n  hosts:"))
    stranger = world.client("stranger", "other")

    assert ask(world).status == 418
    assert send(stranger, Request("reviews.default")).cluster == outbound("reviews")


def test_an_object_for_a_gateway_does_not_bind_sidecars() -> None:
    world = shop(reviews("- directResponse: {status: 418}").replace("hosts:", "gateways: [edge]\n  hosts:"))

    assert ask(world).cluster == outbound("reviews")


def test_delegated_rules_are_narrowed_by_the_rule_that_delegates() -> None:
    world = shop(
        reviews("""
- match: [{uri: {prefix: /team}}]
  delegate: {name: team}
- route: [{destination: {host: reviews, subset: v1}}]
""")
    )
    world.apply("""
        kind: VirtualService
        metadata: {name: team}
        spec:
          http:
          - match: [{uri: {prefix: /team/two}}]
            route: [{destination: {host: reviews, subset: v2}}]
          - match: [{uri: {prefix: /other}}]
            route: [{destination: {host: ratings}}]
          - route: [{destination: {host: reviews, subset: v3}}]
    """)

    assert ask(world, "/team/two").cluster == outbound("reviews", subset="v2")
    assert ask(world, "/team/else").cluster == outbound("reviews", subset="v3")
    assert ask(world, "/other").cluster == outbound("reviews", subset="v1")


def test_an_unknown_host_is_passed_on_or_refused() -> None:
    assert ask(shop(), host="example.com").cluster == "PassthroughCluster"
    assert ask(shop(outbound_allow_any=False), host="example.com").status == 404


def test_a_client_that_dials_an_endpoint_gets_it_with_the_services_rules() -> None:
    world = shop(reviews("- {timeout: 3s, route: [{destination: {host: reviews, subset: v1}}]}"))
    mesh = world.client("productpage")

    outcome = send(mesh, Request("127.64.0.2:9080"))

    assert outcome.cluster == "endpoint|127.64.0.2:9080|9080|reviews.default.svc.cluster.local"
    assert outcome.timeout_s == 3
    assert mesh.addresses(outcome.cluster) == ["127.64.0.2:15006"]


def test_rules_for_a_host_that_is_no_service_hold() -> None:
    world = shop()
    world.apply("""
        kind: VirtualService
        metadata: {name: legacy}
        spec:
          hosts: [legacy.example]
          http: [{route: [{destination: {host: reviews}}]}]
    """)

    assert ask(world, host="legacy.example").cluster == outbound("reviews")


def test_a_member_of_a_wildcard_host_has_a_virtual_host_of_its_own() -> None:
    world = shop()
    world.apply("""
        kind: ServiceEntry
        metadata: {name: wild}
        spec:
          hosts: ["*.example.com"]
          ports: [{number: 9080, name: http, protocol: HTTP}]
          resolution: NONE
    """)

    assert ask(world, host="a.example.com").cluster == "outbound|9080||*.example.com"
    assert ask(world, host="b.a.example.com").cluster == "outbound|9080||*.example.com"


def test_rules_that_are_all_for_other_clients_leave_a_client_the_default() -> None:
    """Istio builds no virtual host from such an object, so that the service's own remains."""
    world = shop(reviews("- {match: [{sourceLabels: {app: ratings}}], directResponse: {status: 418}}"))

    assert ask(world).cluster == outbound("reviews")
    assert send(world.client("ratings"), Request("reviews")).status == 418


def test_rules_for_one_port_leave_the_others_alone() -> None:
    world = (
        World().service("reviews").service("reviews", 9081, account="reviews").service("productpage", 9090)
    )
    world.apply(reviews("- {match: [{port: 9080}], directResponse: {status: 418}}"))
    client = world.client("productpage")

    assert send(client, Request("reviews")).status == 418
    assert send(client, Request("reviews", 9081)).cluster == outbound("reviews", 9081)


DELEGATE = """
    kind: VirtualService
    metadata: {name: team, namespace: team}
    spec:
      EXPORT
      http:
      - match: [{uri: {prefix: /team/own}}]
        timeout: 1s
        route: [{destination: {host: ratings.default.svc.cluster.local}}]
      - match: [{uri: {prefix: /team/part}}, {uri: {prefix: /elsewhere}}]
        directResponse: {status: 418}
      - match: [{uri: {prefix: /TEAM/case}, ignoreUriCase: true}]
        directResponse: {status: 418}
      - route: [{destination: {host: ratings.default.svc.cluster.local}}]
"""
DELEGATING = """
- match: [{uri: {prefix: /team}}]
  name: ours
  timeout: 9s
  rewrite: {authority: inner}
  retries: {attempts: 7}
  delegate: {name: team, namespace: team}
- route: [{destination: {host: reviews, subset: v1}}]
"""


def test_a_delegate_takes_what_it_leaves_out_from_the_rule_that_delegates() -> None:
    world = shop(reviews(DELEGATING)).apply(DELEGATE.replace("EXPORT", ""))

    own, rest = ask(world, "/team/own"), ask(world, "/team/x")

    assert (own.cluster, own.timeout_s, own.action.retry_policy.num_retries.value) == (
        outbound("ratings"),
        1,
        7,
    )
    assert (rest.cluster, rest.timeout_s, rest.action.host_rewrite_literal) == (
        outbound("ratings"),
        9,
        "inner",
    )
    assert own.route.name == "ours"


def test_a_delegated_rule_that_reaches_beyond_has_no_effect_and_is_said() -> None:
    world = shop(reviews(DELEGATING)).apply(DELEGATE.replace("EXPORT", ""))
    built = world.client("productpage").built(TypeUrl.VIRTUAL_HOST, "9080/reviews")

    assert ask(world, "/team/part").cluster == outbound("ratings")
    assert ask(world, "/TEAM/case").cluster == outbound("reviews", subset="v1")
    assert [f.field for f in built.findings] == ["spec.http[1]", "spec.http[2]"]


@pytest.mark.parametrize(("export", "works"), [('["."]', False), ("[default]", True), ("[other]", False)])
def test_a_delegate_must_be_exported_to_the_namespace_that_delegates(export: str, works: bool) -> None:
    world = shop(reviews(DELEGATING)).apply(DELEGATE.replace("EXPORT", f"exportTo: {export}"))
    built = world.client("productpage").built(TypeUrl.VIRTUAL_HOST, "9080/reviews")

    assert ask(world, "/team/own").cluster == (
        outbound("ratings") if works else outbound("reviews", subset="v1")
    )
    assert ("is not exported to namespace default" in str([f.message for f in built.findings])) is not works


def test_an_object_is_seen_by_callers_of_the_namespaces_it_is_exported_to() -> None:
    world = shop(reviews("- directResponse: {status: 418}").replace("hosts:", "exportTo: [team]\n  hosts:"))

    assert send(world.client("stranger", "team"), Request("reviews.default")).status == 418
    assert ask(world).cluster == outbound("reviews")


@pytest.mark.parametrize(
    ("redirect", "port"),
    [
        ("{authority: a.example}", 0),
        ("{authority: a.example, port: 8443}", 8443),
        ("{authority: a.example, port: 80}", 0),
        ("{authority: a.example, port: 80, scheme: https}", 80),
        ("{authority: a.example, port: 443, scheme: https}", 0),
        ("{authority: a.example, derivePort: FROM_REQUEST_PORT}", 9080),
        ("{authority: a.example, derivePort: FROM_PROTOCOL_DEFAULT}", 0),
    ],
)
def test_a_redirect_leaves_the_schemes_own_port_out(redirect: str, port: int) -> None:
    assert ask(shop(reviews(f"- redirect: {redirect}"))).route.redirect.port_redirect == port


@pytest.mark.parametrize("name", ["Host", ":authority"])
def test_a_host_may_be_added_as_well_as_set(name: str) -> None:
    edits = f"headers: {{request: {{add: {{'{name}': added}}}}}}"
    outcome = ask(shop(reviews(f"- {{{edits}, route: [{{destination: {{host: reviews}}}}]}}")))

    assert outcome.action.host_rewrite_literal == "added"
    assert not outcome.route.request_headers_to_add


def test_headers_of_the_only_destination_come_after_the_rules_own() -> None:
    world = shop(
        reviews("""
- headers: {request: {set: {x: rule}}}
  route: [{destination: {host: reviews}, headers: {request: {set: {x: only, host: inner}}}}]
""")
    )

    outcome = ask(world)

    assert outcome.action.WhichOneof("cluster_specifier") == "cluster"
    assert [h.header.value for h in outcome.route.request_headers_to_add] == ["rule", "only"]
    assert outcome.action.host_rewrite_literal == "inner"


@pytest.mark.parametrize(
    ("retries", "others"),
    [("", False), ("retries: {attempts: 2},", False),
     ("retries: {attempts: 2, retryIgnorePreviousHosts: true},", True)],
)  # fmt: skip
def test_a_retry_stays_at_the_endpoint_that_a_hash_chose(retries: str, others: bool) -> None:
    rule = reviews(f"- {{{retries} route: [{{destination: {{host: reviews}}}}]}}")
    world = World().service("reviews").service("productpage", 9090).apply(rule)
    plain = bool(ask(world).action.retry_policy.retry_host_predicate)
    world.apply("""
        kind: DestinationRule
        metadata: {name: reviews}
        spec: {host: reviews, trafficPolicy: {loadBalancer: {consistentHash: {useSourceIp: true}}}}
    """)

    assert plain
    assert bool(ask(world).action.retry_policy.retry_host_predicate) is others
