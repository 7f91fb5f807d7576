"""The traffic rules that the tour does not walk through, with real requests through real Envoys.

Each test applies a file of the sample shop's configuration, as a user would, and asks what comes of it.
"""

from __future__ import annotations

from collections import Counter

import pytest

from retia.cli.tour import shop
from retia.cli.tour.client import Answer, Visitor
from retia.cli.tour.processes import wait_until
from retia.cli.tour.stage import Stage
from retia.cli.tour.steps import bounds

pytestmark = [pytest.mark.privileged, pytest.mark.timeout(180)]

PRODUCTS = "http://products:9080"
REVIEWS = "http://reviews:9080/reviews/1"
RATINGS = "http://ratings:9080/ratings/1"
CHARGE = "http://payments:9080/charge"


def versions(answers: list[Answer]) -> Counter[str]:
    return Counter(str(a.json().get("version", a)) for a in answers)


def statuses(answers: list[Answer]) -> Counter[int]:
    return Counter(a.status for a in answers)


# -- paths, methods, queries, headers


@pytest.fixture
def paths(shop_stage: Stage) -> Stage:
    shop_stage.apply(shop.config("steps/paths"))
    return shop_stage


def test_an_exact_path_is_redirected(paths: Stage, shop_visitor: Visitor) -> None:
    answer = shop_visitor.http(f"{PRODUCTS}/catalogue")
    assert answer.status == 302
    assert answer.headers["location"] in ("http://products:9080/products", "http://products/products")


def test_an_exact_path_is_not_a_prefix(paths: Stage, shop_visitor: Visitor) -> None:
    assert shop_visitor.http(f"{PRODUCTS}/catalogue/1").status == 404


def test_a_prefix_is_rewritten(paths: Stage, shop_visitor: Visitor) -> None:
    answer = shop_visitor.http(f"{PRODUCTS}/p/2")
    assert (answer.status, answer.json()["title"]) == (200, "Gill net")


@pytest.mark.parametrize(("path", "status"), [("/teapot", 418), ("/teapot/green", 418), ("/teapots", 404)])
def test_a_regex_matches_the_whole_path_and_is_answered_by_the_proxy(
    paths: Stage, shop_visitor: Visitor, path: str, status: int
) -> None:
    answer = shop_visitor.http(f"{PRODUCTS}{path}")
    assert answer.status == status
    if status == 418:
        assert answer.body == "I am a teapot"


@pytest.mark.parametrize(
    ("method", "query", "status"),
    [("GET", "?q=nets", 200), ("GET", "?q=boats", 404), ("GET", "", 404), ("PUT", "?q=nets", 404)],
)
def test_query_and_method_must_both_match(
    paths: Stage, shop_visitor: Visitor, method: str, query: str, status: int
) -> None:
    assert shop_visitor.http(f"{PRODUCTS}/search{query}", method=method).status == status


def test_headers_are_added_removed_and_set(paths: Stage, shop_visitor: Visitor) -> None:
    answer = shop_visitor.http(f"{PRODUCTS}/headers", headers={"x-secret": "s", "x-kept": "k"})
    seen = answer.json()["headers"]
    assert seen["x-shop"] == "net-shop"
    assert seen["x-kept"] == "k"
    assert "x-secret" not in seen
    assert answer.headers["x-served-by"] == "retia"


def test_a_header_regex_and_prefix_select_a_version(shop_stage: Stage, shop_visitor: Visitor) -> None:
    shop_stage.apply_text(
        """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http:
    - match:
        - headers: {x-tester: {regex: "(alice|bob)@.*"}}
        - headers: {x-tester: {prefix: "qa-"}}
      route: [{destination: {host: reviews, subset: v3}}]
    - route: [{destination: {host: reviews, subset: v1}}]
"""
    )
    testers = {"alice@shop": "v3", "bob@": "v3", "carol@shop": "v1", "qa-7": "v3", "xqa-7": "v1"}
    for tester, version in testers.items():
        assert shop_visitor.http(REVIEWS, headers={"x-tester": tester}).json()["version"] == version, tester


# -- faults, timeouts, retries


def test_half_of_the_calls_are_aborted(shop_stage: Stage, shop_visitor: Visitor) -> None:
    shop_stage.apply(shop.config("steps/abort"))
    seen = statuses(shop_visitor.many(RATINGS, 200))
    low, high = bounds(200, 0.5)
    assert set(seen) == {200, 500}
    assert low <= seen[500] <= high


def test_a_slow_instance_is_cut_per_try_and_another_answers(shop_stage: Stage, shop_visitor: Visitor) -> None:
    shop_stage.apply(shop.config("steps/slow"))
    answers = shop_visitor.many(RATINGS, 12)
    assert statuses(answers) == {200: 12}
    assert versions(answers) == {"v1": 12}
    assert any(0.3 <= a.seconds < 1.4 for a in answers), "the slow instance was never tried"


def test_a_slow_answer_lives_without_a_timeout(shop_stage: Stage, shop_visitor: Visitor) -> None:
    shop_stage.apply_text(
        """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: ratings}
spec:
  hosts: [ratings]
  http: [{route: [{destination: {host: ratings, subset: slow}}]}]
"""
    )
    answer = shop_visitor.http(RATINGS)
    assert answer.status == 200
    assert answer.seconds >= 1.5


# -- where calls go


def test_a_mirror_gets_a_copy_and_answers_nobody(shop_stage: Stage, shop_visitor: Visitor) -> None:
    shop_stage.apply(shop.config("steps/mirror"))
    shadow = shop_stage.proxy_of(shop_stage.workloads("reviews", "v3")[0].id)
    before = shadow.counted("downstream_rq_total", containing="inbound")
    answers = shop_visitor.many(REVIEWS, 20)
    assert versions(answers) == {"v1": 20}

    def copied() -> bool:
        return shadow.counted("downstream_rq_total", containing="inbound") - before >= 20

    assert wait_until(copied, 5)


def test_a_customer_stays_with_an_instance(shop_stage: Stage, shop_visitor: Visitor) -> None:
    shop_stage.apply(shop.config("steps/retries"), shop.config("steps/balance"))
    homes = {}
    for customer in (f"customer-{n}" for n in range(12)):
        answers = shop_visitor.many(CHARGE, 5, headers={"x-customer": customer})
        steady = {a.json()["instance"] for a in answers if a.json().get("version") == "steady"}
        assert len(steady) <= 1, f"{customer} met {steady}"
        homes[customer] = steady
    assert len(set().union(*homes.values())) > 1, "all customers met one instance"


@pytest.mark.parametrize("policy", ["ROUND_ROBIN", "LEAST_REQUEST", "RANDOM"])
def test_every_balancer_uses_all_instances(shop_stage: Stage, shop_visitor: Visitor, policy: str) -> None:
    shop_stage.apply(shop.config("steps/retries"))
    shop_stage.apply_text(
        f"""
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: payments}}
spec:
  host: payments
  trafficPolicy: {{loadBalancer: {{simple: {policy}}}}}
  subsets:
    - {{name: steady, labels: {{version: steady}}}}
    - {{name: flaky, labels: {{version: flaky}}}}
"""
    )
    seen = Counter(a.json()["instance"] for a in shop_visitor.many(CHARGE, 60))
    assert len(seen) == 3


def test_round_robin_takes_turns(shop_stage: Stage, shop_visitor: Visitor) -> None:
    shop_stage.apply_text(
        """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: payments}
spec:
  host: payments
  trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}
  subsets:
    - {name: steady, labels: {version: steady}}
    - {name: flaky, labels: {version: flaky}}
"""
    )
    seen = Counter(a.json()["instance"] for a in shop_visitor.many(CHARGE, 40))
    # Each Envoy worker takes turns by itself, so the shares are near and not equal.
    assert len(seen) == 2
    assert min(seen.values()) >= 16


def test_more_than_the_connection_pool_allows_is_refused_at_once(
    shop_stage: Stage, shop_visitor: Visitor
) -> None:
    shop_stage.apply(shop.config("steps/limits"))
    shop_stage.apply_text(
        """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: ratings}
spec:
  hosts: [ratings]
  http:
    - retries: {attempts: 0}
      route: [{destination: {host: ratings, subset: slow}}]
"""
    )
    answers = shop_visitor.many(RATINGS, 10, parallel=10)
    refused = [a for a in answers if a.status == 503]
    assert any(a.status == 200 for a in answers)
    assert len(refused) >= 4
    assert all(a.seconds < 1.4 for a in refused)


# -- names and security


def test_an_unknown_service_is_refused_and_not_left_hanging(shop_stage: Stage, shop_visitor: Visitor) -> None:
    answer = shop_visitor.http("http://reviews:9080/reviews/1", headers={"host": "nothing:9080"}, timeout_s=8)
    assert answer.status in (404, 502, 503)
    assert answer.seconds < 5


def test_every_spelling_of_a_name_is_the_same_service(shop_stage: Stage, shop_visitor: Visitor) -> None:
    for name in ("reviews", "reviews.default", "reviews.default.svc", "reviews.default.svc.cluster.local"):
        answer = shop_visitor.http(f"http://{name}:9080/reviews/1")
        assert answer.json().get("version") == "v1", f"{name}: {answer}"


def test_a_route_by_source_label_and_a_delete_are_both_followed(
    shop_stage: Stage, shop_visitor: Visitor
) -> None:
    shop_stage.apply(shop.config("steps/one-user"))
    assert shop_visitor.http(REVIEWS, headers={"end-user": "jason"}).json()["version"] == "v3"
    shop_stage.client.delete_object("VirtualService", "default", "reviews")

    def spread() -> bool:
        return len(versions(shop_visitor.many(REVIEWS, 30))) == 3

    assert wait_until(spread, 10), "calls are still held to one version after the rule was deleted"


def test_stock_travels_from_java_script_to_the_tcp_service(shop_stage: Stage, shop_visitor: Visitor) -> None:
    assert shop_visitor.http(f"{PRODUCTS}/products/3").json()["stock"] == 2
