"""The steps of the tour, in order. Each returns one sentence of what it saw, or raises :class:`Disproved`."""

from __future__ import annotations

import json
import math
import re
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from retia.cli.tour import outside, shop
from retia.cli.tour.client import Answer, Visitor
from retia.cli.tour.errors import TourError, expect
from retia.cli.tour.processes import retia, wait_until
from retia.cli.tour.stage import Stage

VIRTUAL = ip_network("240.240.0.0/16")
DOMAIN = "default.svc.cluster.local"
REVIEWS = "http://reviews:9080/reviews/1"
CHARGE = "http://payments:9080/charge"
CANARY_CALLS = 400
ROLLOUT_S = 20
SIGMAS = 4
"""A true 90/10 split leaves four standard deviations in one walk of 16,000."""


@dataclass
class Tour:
    """What the steps work with."""

    stage: Stage
    visitor: Visitor
    capture: str
    inventory_port: int
    """A port of 127.0.0.1 that leads the visitor to ``inventory``, for explicit capture."""

    def use(self, *names: str) -> None:
        """Start from the shop's own routes, then apply files of its configuration."""
        self.stage.apply(shop.config("versions"), shop.config("routes"))
        if names:
            self.stage.apply(*(shop.config(name) for name in names))

    def visitor_id(self) -> str:
        """The visitor's workload id."""
        mine = [w.id for w in self.stage.workloads() if w.identity.endswith("/sa/visitor")]
        expect(len(mine) == 1, f"the registry lists {len(mine)} workloads with the visitor's identity")
        return mine[0]


@dataclass(frozen=True, slots=True)
class Step:
    """One step. ``needs_ebpf`` says why explicit capture cannot give it; empty: it can."""

    title: str
    act: Callable[[Tour], str]
    needs_ebpf: str = ""


def names(tour: Tour) -> str:
    spellings = ["reviews", "reviews.default", "reviews.default.svc", f"reviews.{DOMAIN}"]
    found = {name: tour.visitor.resolve(name) for name in spellings}
    distinct = {tuple(v) for v in found.values()}
    expect(len(distinct) == 1, f"the spellings differ: {found}")
    addresses = next(iter(distinct))
    expect(len(addresses) == 1 and ip_address(addresses[0]) in VIRTUAL, f"reviews resolves to {addresses}")
    missing = tour.visitor.resolve(f"nothing.{DOMAIN}")
    expect(not missing, f"a service that does not exist resolves to {missing}")
    return f"four spellings of reviews are {addresses[0]}; a name that does not exist is not there"


def whole_shop(tour: Tour) -> str:
    tour.use()
    answer = tour.visitor.http("http://web:8080/api/product/1")
    data = answer.json()
    expect(answer.status == 200, f"the storefront answered {answer}: {answer.body[:200]}")
    product, reviews = data.get("product", {}), data.get("reviews", {})
    expect(reviews.get("version") == "v1", f"reviews came from {reviews}")
    expect(
        isinstance(product.get("stock"), int), f"the stock is {product.get('stock')}: no word from inventory"
    )
    return (
        f"web called products ({product['language']}), which asked inventory over TCP "
        f"({product['stock']} left), and reviews v1"
    )


def server_speaks_first(tour: Tour) -> str:
    host, port = ("inventory", 7070) if tour.capture == "ebpf" else ("127.0.0.1", tour.inventory_port)
    started = time.monotonic()
    try:
        lines = tour.visitor.tcp(host, port, "STOCK 2", "QUIT")
    except OSError as error:
        expect(False, f"inventory at {host}:{port}: {error}")
    took_ms = (time.monotonic() - started) * 1000
    expect(len(lines) == 3 and lines[0].endswith("ready"), f"inventory said {lines}")
    expect(lines[1].startswith("OK") and lines[2] == "BYE", f"inventory answered {lines[1:]}")
    return f"inventory greeted first ('{lines[0]}'), then answered '{lines[1]}', in {took_ms:.0f} ms"


def one_port_for_many(tour: Tour) -> str:
    instances = tour.stage.workloads("payments")
    ports = {(w.app_address, p.app_port) for w in instances for p in w.ports}
    expect(len(instances) == 3, f"{len(instances)} instances of payments are registered")
    for address, port in ports:
        expect(port == 9080 and outside.listens(address, port), f"nobody listens on {address}:{port}")
    tour.use("steps/retries")
    answers = tour.visitor.many(CHARGE, 40)
    seen = Counter(a.json().get("instance", str(a)) for a in answers)
    expect(len(seen) == 3, f"40 charges were answered by {dict(seen)}")
    shares = ", ".join(map(str, seen.values()))
    return f"3 instances listen on port 9080 of this host, and took {shares} of 40 calls"


def mutual_tls(tour: Tour) -> str:
    """What proves it: the callee's proxy counts a handshake and no connection without a certificate, and
    tells its program the two names that it verified."""
    tour.use("steps/one-user")
    callee = tour.stage.workloads("reviews", "v3")[0]
    theirs = tour.stage.proxy_of(callee.id)
    ours = tour.stage.proxy_of(tour.visitor_id())
    client, server = "spiffe://cluster.local/ns/default/sa/visitor", callee.identity
    before = theirs.counted("ssl.handshake", containing="listener.")
    answer = tour.visitor.http("http://reviews:9080/headers", headers={"end-user": "jason"})
    handshakes = theirs.counted("ssl.handshake", containing="listener.") - before
    told = answer.json().get("headers", {}).get("x-forwarded-client-cert", "")
    names = dict(re.findall(r"(By|URI)=([^;,\"]+)", told))
    expect(answer.status == 200, f"reviews v3 answered {answer}")
    expect(names == {"By": server, "URI": client}, f"reviews v3 was told '{told}'")
    expect(handshakes > 0, "reviews v3's proxy counted no TLS handshake")
    expect(
        theirs.counted("ssl.no_certificate", containing="listener.") == 0,
        "somebody came without a certificate",
    )
    expect(ours.counted("ssl.fail_verify_san", containing="reviews") == 0, "a wrong name was met")
    expect(ours.identities() == [client], f"the visitor's proxy presents {ours.identities()}")
    expect(server in theirs.identities(), f"the proxy of reviews presents {theirs.identities()}")
    return (
        f"reviews v3's proxy says By={server}, URI={client}; "
        f"{handshakes} new handshake(s), none without a certificate"
    )


def canary(tour: Tour) -> str:
    tour.use("steps/canary")
    answers = tour.visitor.many(REVIEWS, CANARY_CALLS)
    seen = Counter(a.json().get("version", str(a)) for a in answers)
    low, high = bounds(CANARY_CALLS, 0.10)
    expect(set(seen) <= {"v1", "v2"}, f"answers came from {dict(seen)}")
    expect(low <= seen["v2"] <= high, f"v2 took {seen['v2']} of {CANARY_CALLS}; expected {low} to {high}")
    return f"v2 took {seen['v2']} of {CANARY_CALLS} calls (bound: {low} to {high}, four standard deviations)"


def bounds(calls: int, share: float) -> tuple[int, int]:
    """The counts within :data:`SIGMAS` standard deviations of a fair draw."""
    spread = SIGMAS * math.sqrt(calls * share * (1 - share))
    return math.ceil(calls * share - spread), math.floor(calls * share + spread)


def one_user(tour: Tour) -> str:
    tour.use("steps/one-user")
    jason = Counter(
        a.json().get("version", str(a)) for a in tour.visitor.many(REVIEWS, 20, headers={"end-user": "jason"})
    )
    others = Counter(
        a.json().get("version", str(a))
        for a in tour.visitor.many(REVIEWS, 20, headers={"end-user": "jasonx"})
    )
    expect(set(jason) == {"v3"}, f"jason saw {dict(jason)}")
    expect(set(others) == {"v1"}, f"others saw {dict(others)}")
    return "jason saw v3 20 times of 20, another user v1 20 times of 20"


def explained(tour: Tour) -> str:
    """By the command itself: its exit status is 0 only where prediction and outcome agree."""
    tour.use("steps/one-user")
    call = ["explain", "--from", tour.visitor_id(), "--to", REVIEWS, "-H", "end-user: jason"]
    done = subprocess.run(
        retia(*call, "--send", "-o", "json"),
        env=tour.stage.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    expect(done.returncode == 0, f"'retia {' '.join(call)} --send' failed: {done.stderr or done.stdout}")
    told = json.loads(done.stdout)
    clusters = ", ".join(told["clusters"])
    expect("|v3|" in clusters, f"the call was said to go to {clusters}")
    outcome = told["outcome"]
    expect(outcome["status"] == 200, f"it was sent, and the answer is {outcome}")
    went = next((r["workload"] for r in outcome["reached"] if r["workload"]), "")
    expect("reviews-v3" in went, f"it went to {went or 'nobody that is known'}")
    return f"jason's call was said to go to v3 by the rule 'jason'; sent, {went} answered it"


def delay_and_timeout(tour: Tour) -> str:
    tour.use("steps/delay")
    delayed = tour.visitor.http("http://ratings:9080/ratings/1")
    cut = tour.visitor.http(REVIEWS)
    expect(
        delayed.status == 200 and 2.0 <= delayed.seconds < 3.5,
        f"ratings: {delayed} after {delayed.seconds:.2f} s",
    )
    expect(cut.status == 504 and 0.45 <= cut.seconds < 1.5, f"reviews: {cut} after {cut.seconds:.2f} s")
    return f"ratings took {delayed.seconds:.2f} s (injected: 2 s); reviews: 504 after {cut.seconds:.2f} s"


def retries(tour: Tour) -> str:
    tour.use("steps/no-retries")
    shown = _failures(tour.visitor.many(CHARGE, 90))
    tour.stage.apply(shop.config("steps/retries"))
    ours = tour.stage.proxy_of(tour.visitor_id())
    before = ours.counted("upstream_rq_retry", containing="payments")
    hidden = _failures(tour.visitor.many(CHARGE, 90))
    retried = ours.counted("upstream_rq_retry", containing="payments") - before
    expect(shown > 0, "the flaky instance failed no call of 90 with retries off")
    expect(hidden == 0, f"{hidden} of 90 calls failed in spite of retries")
    expect(retried > 0, "the proxy counted no retry")
    return (
        f"without retries {shown} of 90 charges failed; with them none (the proxy counted {retried} retries)"
    )


def outlier(tour: Tour) -> str:
    tour.use("steps/no-retries", "steps/outlier")
    cluster = f"outbound|9080||payments.{DOMAIN}"
    ours = tour.stage.proxy_of(tour.visitor_id())
    _trouble(tour, every=1)
    try:
        first = _failures(tour.visitor.many(CHARGE, 60))
        ejected = [a for a, flags in ours.health_flags(cluster).items() if "failed_outlier_check" in flags]
        after = tour.visitor.many(CHARGE, 30)
    finally:
        _trouble(tour, every=0)
    expect(first >= 3, f"{first} of 60 calls failed; the flaky instance was hardly called")
    expect(len(ejected) == 1, f"Envoy has ejected {ejected or 'nobody'} after {first} failures")
    expect(_failures(after) == 0, f"{_failures(after)} of 30 calls failed after the ejection")
    back = wait_until(lambda: not any("outlier" in f for f in ours.health_flags(cluster).values()), 15, 0.2)
    expect(back, "the ejected instance did not return within 15 s")
    versions = Counter(a.json().get("version", str(a)) for a in tour.visitor.many(CHARGE, 60))
    expect(versions["flaky"] > 0, f"after its return the instance got none of 60 calls: {dict(versions)}")
    expect(sum(versions[v] for v in ("flaky", "steady")) == 60, f"after the return: {dict(versions)}")
    return (
        f"after {first} failures Envoy left {ejected[0]} out, 30 calls of 30 succeeded; "
        f"it returned, and took {versions['flaky']} of 60 calls"
    )


def rollout(tour: Tour) -> str:
    tour.use("steps/no-retries")
    _trouble(tour, every=1)
    client = tour.stage.client
    met: Counter[str] = Counter()
    try:
        tour.stage.apply(shop.config("steps/rollout"))
        began = time.monotonic()
        ended = client.get_rollout("default", "payments")
        while ended.phase == "progressing" and time.monotonic() - began < ROLLOUT_S:
            met.update(a.json().get("version", str(a)) for a in tour.visitor.many(CHARGE, 20))
            ended = client.get_rollout("default", "payments")
        took_s = time.monotonic() - began
        expect(met["flaky"] > 0, f"the canary met no call: {dict(met)}")
        expect(ended.phase == "rolled-back", f"after {took_s:.0f} s the rollout is {ended.phase}: {ended}")
        back = wait_until(lambda: _only(tour, "steady"), 5, 0.1)
        expect(back, "the canary still gets calls after it was taken back")
    finally:
        _trouble(tour, every=0)
        client.delete_object("Rollout", "default", "payments")
    return f"after {took_s:.1f} s, {ended.reason}; 40 calls of 40 went to the steady version again"


def rate_limit(tour: Tour) -> str:
    tour.use("steps/rate-limit")
    try:
        # The proxy's listeners take the filter a moment after they have accepted it.
        counts = wait_until(lambda: _failures(_reviews_for(tour, "nobody", 6)) > 0, 15, 0.1)
        expect(counts, "nothing was refused within 15 s")
        ann, bob = _reviews_for(tour, "ann", 8), _reviews_for(tour, "bob", 5)
    finally:
        tour.stage.client.delete_object("RateLimitPolicy", "default", "reviews")
    statuses = [answer.status for answer in ann]
    expect(statuses == [200] * 5 + [429] * 3, f"8 calls of one user gave {statuses}")
    expect(_failures(bob) == 0, f"{_failures(bob)} of 5 calls of another user were refused")
    headers = ann[-1].headers
    left, code = headers.get("x-ratelimit-remaining"), headers.get("retia-code")
    expect(left == "0", f"the refusal says that {left} calls are left")
    expect(code == "RT5013", f"the refusal's code is {code}")
    return f"of 8 calls 5 came through, then 429 with {code}; another user's 5 all came through"


def _reviews_for(tour: Tour, user: str, count: int) -> list[Answer]:
    return tour.visitor.many(REVIEWS, count, headers={"x-user": user})


def _only(tour: Tour, version: str) -> bool:
    return {a.json().get("version") for a in tour.visitor.many(CHARGE, 40)} == {version}


def hidden_port(tour: Tour) -> str:
    instance = tour.stage.workloads("reviews", "v1")[0]
    port = instance.ports[0].app_port
    seen = outside.plain_call(instance.app_address, port)
    expect(not seen.status, f"a stranger got status {seen.status} from {instance.app_address}:{port}")
    local = outside.plain_call("127.0.0.1", port)
    expect("shop-reviews" not in local.headers.get("server", ""), f"127.0.0.1:{port} leads to reviews")
    return f"{instance.app_address}:{port}, where reviews v1 listens, gave a stranger nothing ({seen.error})"


def stranger(tour: Tour) -> str:
    """This process is not in the mesh: it tries plaintext, and TLS with no certificate."""
    instance = tour.stage.workloads("reviews", "v1")[0]
    address = instance.published_address
    plain = outside.plain_call(address, 15006)
    expect(not plain.status, f"plaintext to {address}:15006 was answered with {plain.status}")
    if tour.capture == "ebpf":
        direct = outside.plain_call(address, 9080)
        expect(not direct.status, f"plaintext to {address}:9080 was answered with {direct.status}")
    sni = f"outbound_.9080_.v1_.reviews.{DOMAIN}"
    names, answered = outside.tls_without_certificate(address, 15006, sni)
    expect(not answered, "TLS without a certificate was let in")
    expect(names == [instance.identity], f"the proxy presented {names}")
    return f"{address} closes on plaintext and on TLS without a certificate; it presented {names[0]}"


STEPS = (
    Step("names resolve", names, "names are not in DNS"),
    Step("the whole shop answers", whole_shop),
    Step("a TCP service whose server speaks first", server_speaks_first),
    Step("many instances listen on one port", one_port_for_many, "each program needs a port of its own"),
    Step("a call is mutual TLS between two identities", mutual_tls),
    Step("a canary gets 10 of 100 calls", canary),
    Step("a header sends one user to v3", one_user),
    Step("a call is explained, sent, and goes where it was said to", explained),
    Step("an injected delay is cut by a timeout", delay_and_timeout),
    Step("retries hide a flaky instance", retries),
    Step("an outlier is left out and returns", outlier),
    Step("a bad canary is taken back by itself", rollout),
    Step("a user beyond the limit gets 429", rate_limit),
    Step("a stranger cannot reach a program's port", hidden_port, "the program's port is open to this host"),
    Step("a stranger gets nothing from a proxy", stranger),
)


def _failures(answers: list[Answer]) -> int:
    return sum(a.status != 200 for a in answers)


def _trouble(tour: Tour, every: int) -> None:
    answer = tour.visitor.http(f"http://payments:9080/trouble?every={every}", body="")
    if answer.json().get("every") != every:
        raise TourError(f"could not set the flaky instance's trouble: {answer}")
