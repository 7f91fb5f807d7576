"""What is found only where all objects are seen together."""

# ruff: noqa: E501 - messages stand whole, so that they can be searched for

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest

from retia.analysis.analyze import analyze
from retia.config.codes import Code
from retia.model.finding import Finding
from retia.model.ids import Host, HostId, Namespace, WorkloadId, service_host
from retia.model.mesh import Endpoint, EndpointSet, Protocol, Service, ServicePort, Wire, Workload, labels_of
from retia.model.objects import ConfigObject
from tests.support.documents import read

HTTP = ServicePort(9080, Protocol.HTTP)
TCP = ServicePort(5432, Protocol.TCP)
REVIEWS = "reviews.default.svc.cluster.local"


def service(name: str, *ports: ServicePort, namespace: str = "default") -> Service:
    return Service(service_host(name, namespace), Namespace(namespace), name, ports or (HTTP,))


def endpoints(name: str, *labels: dict[str, str], address: str = "127.64.0.1") -> EndpointSet:
    made = tuple(
        Endpoint(9080, f"{address}{i}", 15006, Wire.MTLS, app_port=9080, labels=labels_of(each))
        for i, each in enumerate(labels)
    )
    return EndpointSet(service_host(name, "default"), made)


def workload(name: str, namespace: str = "default", **labels: str) -> Workload:
    return Workload(
        WorkloadId(f"{namespace}/{name}"), Namespace(namespace), name, HostId("h"), labels=labels_of(labels)
    )


def virtual_service(
    spec: str, name: str = "it", namespace: str = "default", created: int = 0
) -> ConfigObject:
    return replace(read("VirtualService", spec, name, namespace), created=created)


def destination_rule(
    spec: str, name: str = "it", namespace: str = "default", created: int = 0
) -> ConfigObject:
    return replace(read("DestinationRule", spec, name, namespace), created=created)


def policy(spec: str, name: str = "it", namespace: str = "default", created: int = 0) -> ConfigObject:
    return replace(read("PeerAuthentication", spec, name, namespace), created=created)


def to(destination: str, host: str = "reviews") -> str:
    return f"hosts: [{host}]\nhttp: [{{route: [{{destination: {destination}}}]}}]"


def said(found: Iterable[Finding]) -> list[str]:
    return [f"{each.ref}: {each.field}: {each.message}" for each in found]


class TestReferences:
    def test_all_there(self) -> None:
        objects = [
            virtual_service(to("{host: reviews, subset: v1, port: {number: 9080}}")),
            destination_rule("host: reviews\nsubsets: [{name: v1, labels: {version: v1}}]"),
        ]
        assert analyze(objects, [service("reviews")], [endpoints("reviews", {"version": "v1"})], []) == ()

    def test_a_host_that_does_not_exist(self) -> None:
        found = analyze(
            [virtual_service(to("{host: ratings}"))],
            [service("reviews"), service("ratings", namespace="shop")],
        )
        assert said(found) == [
            "VirtualService/default/it: spec.http[0].route[0].destination.host: is ratings, but no service is named "
            "ratings.default.svc.cluster.local; requests sent to it get 503"
        ]
        assert found[0].remedy == "perhaps ratings.shop.svc.cluster.local is meant"

    def test_a_mirror_that_does_not_exist(self) -> None:
        spec = "hosts: [reviews]\nhttp: [{route: [{destination: {host: reviews}}], mirror: {host: shadow}}]"
        (found,) = analyze([virtual_service(spec)], [service("reviews")])
        assert (found.code, found.field) == (Code.UNKNOWN_HOST, "spec.http[0].mirror.host")

    def test_a_host_that_a_wildcard_service_covers(self) -> None:
        wild = Service(Host("*.example.com"), Namespace("default"), "wild", (HTTP,))
        assert analyze([virtual_service(to("{host: a.example.com}"))], [service("reviews"), wild]) == ()

    def test_a_port_that_does_not_exist(self) -> None:
        (found,) = analyze([virtual_service(to("{host: reviews, port: {number: 80}}"))], [service("reviews")])
        assert said([found]) == [
            "VirtualService/default/it: spec.http[0].route[0].destination.port.number: is 80, which "
            f"{REVIEWS} does not have (it has 9080); requests get 503"
        ]

    def test_a_subset_that_no_rule_defines(self) -> None:
        rule = destination_rule("host: reviews\nsubsets: [{name: v1}]")
        (found,) = analyze([virtual_service(to("{host: reviews, subset: v2}")), rule], [service("reviews")])
        assert (found.code, found.field) == (Code.UNKNOWN_SUBSET, "spec.http[0].route[0].destination.subset")
        assert found.remedy == f"add subset v2 to a DestinationRule for {REVIEWS}"

    def test_a_rule_for_nobody(self) -> None:
        (found,) = analyze([destination_rule("host: ratings")], [service("reviews")])
        assert (found.code, found.field) == (Code.UNKNOWN_HOST, "spec.host")

    def test_a_subset_with_no_workload(self) -> None:
        rule = destination_rule("host: reviews\nsubsets: [{name: v2, labels: {version: v2}}]")
        (found,) = analyze([rule], [service("reviews")], [endpoints("reviews", {"version": "v1"})], [])
        assert found.code == Code.EMPTY_SUBSET
        assert (
            found.message
            == f"v2 has no running workload ({REVIEWS} with version=v2); requests sent to it get 503"
        )

    def test_workloads_that_nobody_knows_are_not_missed(self) -> None:
        rule = destination_rule("host: reviews\nsubsets: [{name: v2, labels: {version: v2}}]")
        assert analyze([rule], [service("reviews")]) == ()


class TestConflicts:
    def test_two_virtual_services_for_one_host(self) -> None:
        old = virtual_service(to("{host: reviews}", REVIEWS), "old", "shop", created=1)
        new = virtual_service(to("{host: reviews}"), "new", created=2)
        found = analyze([new, old], [service("reviews"), service("reviews", namespace="shop")])
        assert said(found) == [
            f"VirtualService/default/new: spec.http[0]: is never reached for {REVIEWS}: spec.http[0] of "
            "VirtualService/shop/old is older and takes its requests"
        ]

    def test_a_rule_for_connections_behind_one_for_all_of_them(self) -> None:
        to_db = "route: [{destination: {host: db}}]"
        spec = f"hosts: [db]\ntcp: [{{match: [{{port: 1}}], {to_db}}}, {{{to_db}}}, {{match: [{{port: 2}}], {to_db}}}]"
        found = analyze([virtual_service(spec, "db")], [service("db")])
        assert [(each.code, each.field) for each in found if each.code == "RT0310"] == [
            ("RT0310", "spec.tcp[2]")
        ]

    def test_a_narrower_rule_of_a_younger_object_is_reached(self) -> None:
        old = virtual_service(to("{host: reviews}", REVIEWS), "old", "shop", created=1)
        narrow = to("{host: reviews}").replace("[{route", "[{match: [{uri: {prefix: /a}}], route")
        new = virtual_service(narrow, "new", created=2)
        found = analyze([new, old], [service("reviews"), service("reviews", namespace="shop")])
        assert said(found) == []

    def test_no_fight_where_no_caller_sees_both(self) -> None:
        spec = f"{to('{host: ' + REVIEWS + '}', REVIEWS)}\nexportTo: ['.']"
        objects = [virtual_service(spec, "a", "shop"), virtual_service(spec, "a", "default")]
        assert analyze(objects, [service("reviews")]) == ()

    def test_two_destination_rules_for_one_host(self) -> None:
        spec = "host: reviews\ntrafficPolicy: {outlierDetection: {}}\nsubsets: [{name: v1}]"
        objects = [destination_rule(spec, "a", created=1), destination_rule(spec, "b", created=2)]
        found = analyze(objects, [service("reviews")])
        assert [(each.ref.name, each.field) for each in found if each.ref] == [
            ("b", "spec.subsets[0]"),
            ("b", "spec.trafficPolicy"),
        ]

    def test_one_host_from_two_objects(self) -> None:
        a = replace(read("Service", "ports: [{port: 80}]", "reviews"), created=1)
        b = replace(read("ServiceEntry", f"hosts: [{REVIEWS}]", "b"), created=2)
        (found,) = analyze([b, a], [service("reviews")])
        assert said([found]) == [
            f"ServiceEntry/default/b: spec.hosts[0]: is {REVIEWS}, which Service/default/reviews defines and which is "
            "older; this one has no effect"
        ]

    def test_an_address_of_two_services(self) -> None:
        sets = [endpoints("reviews", {}), endpoints("ratings", {})]
        (found,) = analyze([], [service("reviews"), service("ratings")], sets, [])
        assert found.code == Code.AMBIGUOUS_ADDRESS
        assert found.message.startswith("127.64.0.10:9080 is an endpoint of ratings.default")


class TestProtocols:
    def test_http_rules_for_a_host_without_http(self) -> None:
        found = analyze([virtual_service(to("{host: db}", "db"))], [service("db", TCP)])
        assert said(found) == [
            "VirtualService/default/it: spec.hosts[0]: is db.default.svc.cluster.local, whose ports carry no HTTP: 5432 "
            "(tcp); the http rules have no effect"
        ]

    def test_an_http_rule_that_sends_to_a_tcp_port(self) -> None:
        spec = to("{host: db, port: {number: 5432}}")
        (found,) = analyze([virtual_service(spec)], [service("reviews"), service("db", TCP, HTTP)])
        assert (found.code, found.field) == (
            Code.PROTOCOL_MISMATCH,
            "spec.http[0].route[0].destination.port.number",
        )

    def test_a_match_on_a_tcp_port(self) -> None:
        spec = "hosts: [db]\nhttp: [{match: [{port: 5432}], route: [{destination: {host: db}}]}]"
        (found,) = analyze([virtual_service(spec)], [service("db", TCP, HTTP)])
        assert (
            found.message
            == "is 5432, on which db.default.svc.cluster.local speaks tcp; the match never holds"
        )

    def test_a_port_that_is_detected_may_carry_http(self) -> None:
        auto = service("db", ServicePort(5432, Protocol.AUTO))
        assert analyze([virtual_service(to("{host: db}", "db"))], [auto]) == ()


class TestReach:
    def rules(self, *matches: str) -> list[str]:
        rules = "".join(
            f"- {{match: {match}, route: [{{destination: {{host: reviews}}}}]}}\n" for match in matches
        )
        found = analyze([virtual_service(f"hosts: [reviews]\nhttp:\n{rules}")], [service("reviews")])
        return [f"{each.field}: {each.message}" for each in found]

    def test_a_rule_after_one_that_takes_all(self) -> None:
        assert self.rules("[]", "[{uri: {exact: /a}}]") == [
            "spec.http[1]: is never reached: spec.http[0] takes all of its requests"
        ]

    def test_a_match_block_after_a_wider_one(self) -> None:
        assert self.rules("[{uri: {prefix: /a}}]", "[{uri: {exact: /ab}}, {uri: {exact: /b}}]") == [
            "spec.http[1].match[0]: never holds: spec.http[0].match[0] takes all of its requests"
        ]

    @pytest.mark.parametrize(
        ("wide", "narrow"),
        [
            ("{uri: {prefix: /}}", "{uri: {regex: '.*'}}"),
            ("{headers: {x: {}}}", "{headers: {x: {exact: a}, y: {}}}"),
            ("{port: 9080}", "{port: 9080, method: {exact: GET}}"),
            ("{sourceLabels: {a: b}}", "{sourceLabels: {a: b, c: d}}"),
            ("{uri: {prefix: /A}, ignoreUriCase: true}", "{uri: {exact: /ab}}"),
            ("{withoutHeaders: {x: {}}}", "{withoutHeaders: {x: {}, y: {}}}"),
        ],
    )
    def test_what_covers_what(self, wide: str, narrow: str) -> None:
        assert self.rules(f"[{wide}]", f"[{narrow}]") != []
        assert self.rules(f"[{narrow}]", f"[{wide}]") == []

    @pytest.mark.parametrize(
        ("first", "second"),
        [
            ("{uri: {prefix: /a}}", "{uri: {prefix: /a}, ignoreUriCase: true}"),
            ("{uri: {regex: '/a.*'}}", "{uri: {exact: /ab}}"),
            ("{method: {exact: GET}}", "{method: {exact: POST}}"),
            ("{headers: {x: {prefix: a}}}", "{headers: {x: {regex: 'a.*'}}}"),
            ("{uri: {prefix: /a}, sourceNamespace: shop}", "{uri: {prefix: /a}}"),
        ],
    )
    def test_what_does_not(self, first: str, second: str) -> None:
        assert self.rules(f"[{first}]", f"[{second}]") == []


class TestMutualTls:
    def test_a_selector_that_selects_nothing(self) -> None:
        spec = "selector: {matchLabels: {app: db}}\nmtls: {mode: STRICT}"
        assert analyze([policy(spec)], [], [], [workload("db", app="db")]) == ()
        (found,) = analyze([policy(spec)], [], [], [workload("db", "shop", app="db")])
        assert found.message == "selects app=db, which no running workload of default has"

    def test_a_selector_in_the_root_namespace(self) -> None:
        (found,) = analyze([policy("selector: {matchLabels: {app: db}}", namespace="istio-system")], [])
        assert found.code == Code.EMPTY_SELECTOR

    def test_two_policies_for_one_namespace(self) -> None:
        objects = [
            policy("mtls: {mode: STRICT}", "b", created=2),
            policy("mtls: {mode: DISABLE}", "a", created=1),
        ]
        (found,) = analyze(objects, [])
        assert said([found]) == [
            "PeerAuthentication/default/b: : has no effect: PeerAuthentication/default/a is older and is for the same "
            "workloads"
        ]

    @pytest.mark.parametrize("mode", ["DISABLE", "SIMPLE"])
    @pytest.mark.parametrize("namespace", ["default", "istio-system"])
    def test_plaintext_to_where_mutual_tls_is_demanded(self, mode: str, namespace: str) -> None:
        objects = [
            policy("mtls: {mode: STRICT}", namespace=namespace),
            destination_rule(f"host: reviews\ntrafficPolicy: {{tls: {{mode: {mode}}}}}"),
        ]
        (found,) = analyze(objects, [service("reviews")])
        assert (found.code, found.field) == (Code.MTLS_CONFLICT, "spec.trafficPolicy.tls.mode")
        assert mode in found.message

    @pytest.mark.parametrize("inner", ["PERMISSIVE", "DISABLE"])
    def test_a_narrower_policy_may_allow_it(self, inner: str) -> None:
        objects = [
            policy("mtls: {mode: STRICT}", namespace="istio-system"),
            policy(f"mtls: {{mode: {inner}}}"),
            destination_rule("host: reviews\ntrafficPolicy: {tls: {mode: DISABLE}}"),
        ]
        assert analyze(objects, [service("reviews")]) == ()

    def test_an_unset_mode_leaves_it_to_the_wider_policy(self) -> None:
        objects = [
            policy("mtls: {mode: STRICT}", namespace="istio-system"),
            policy("mtls: {mode: UNSET}"),
            destination_rule("host: reviews\ntrafficPolicy: {tls: {mode: DISABLE}}"),
        ]
        assert [each.code for each in analyze(objects, [service("reviews")])] == [Code.MTLS_CONFLICT]

    def test_a_service_outside_the_mesh_demands_nothing(self) -> None:
        outside = replace(service("reviews"), external=True)
        objects = [
            policy("mtls: {mode: STRICT}"),
            destination_rule("host: reviews\ntrafficPolicy: {tls: {mode: SIMPLE}}"),
        ]
        assert analyze(objects, [outside]) == ()


def test_the_order_of_input_does_not_show() -> None:
    objects = [
        virtual_service(to("{host: x}"), "a", created=1),
        virtual_service(to("{host: y, subset: z}"), "b", created=2),
        destination_rule("host: nobody"),
        policy("mtls: {mode: STRICT}", "p"),
        policy("mtls: {mode: STRICT}", "q"),
    ]
    assert analyze(objects, [service("reviews")]) == analyze(reversed(objects), [service("reviews")])
