from __future__ import annotations

import json
import re
from urllib.parse import unquote

from retia.agent.envoy import is_allowed
from retia.control.measures import Answers, Meter, sample_of, stats_path
from retia.policy.rollout import Sample
from retia.policy.rollout.sample import Bin

HOST = "reviews.default.svc.cluster.local"
CLUSTER = f"cluster.outbound|9080|rollout~canary|{HOST}"


def body(**values: int) -> bytes:
    """An answer of Envoy 1.40's admin interface."""
    stats: list[object] = [{"name": f"{CLUSTER}.{name}", "value": value} for name, value in values.items()]
    details = [
        {
            "name": f"{CLUSTER}.upstream_rq_time",
            "totals": [{"lower_bound": 20, "width": 1, "count": 5}],
            "intervals": [],
            "percentiles": [],
        }
    ]
    stats.append({"histograms": {"supported_percentiles": [50], "details": details}})
    return json.dumps({"stats": stats}).encode()


def test_answers_are_counted_by_class() -> None:
    found = sample_of(body(upstream_rq_2xx=5, upstream_rq_4xx=2, upstream_rq_5xx=1), HOST)
    assert found == Sample(8, 1, (Bin(20, 1, 5),))


def test_grpc_failures_are_those_of_the_server() -> None:
    raw = body(upstream_rq_2xx=10) + b""
    stats = json.loads(raw)
    stats["stats"] += [{"name": f"{CLUSTER}.grpc.{code}", "value": 1} for code in (0, 3, 5, 13, 14)]
    found = sample_of(json.dumps(stats).encode(), HOST)
    assert found is not None
    assert (found.requests, found.failures) == (10, 2)


def test_an_answer_without_sense_is_none() -> None:
    for wrong in (b"", b"{}", b"[]", b"not JSON"):
        assert sample_of(wrong, HOST) is None


def test_the_agent_lets_the_question_pass_and_it_asks_for_nothing_else() -> None:
    path = stats_path(HOST)
    assert is_allowed(path)
    pattern = unquote(path.rpartition("filter=")[2])
    for name in ("upstream_rq_5xx", "upstream_rq_time", "grpc.14"):
        assert re.fullmatch(pattern, f"{CLUSTER}.{name}")
    for other in (
        f"{CLUSTER}.external.upstream_rq_5xx",
        f"{CLUSTER}.upstream_rq_500",
        CLUSTER.replace("canary", "stable") + ".upstream_rq_5xx",
        CLUSTER.replace("reviews", "xreviews") + ".upstream_rq_5xx",
    ):
        assert not re.fullmatch(pattern, other), other


def test_what_was_counted_before_the_step_does_not_matter() -> None:
    meter = Meter()
    meter.begin(1)
    for count in (100, 103, 110):
        meter.take({"a": Sample(count, count)})
    assert meter.sample == Sample(7, 7)


def test_a_proxy_that_comes_later_begins_with_its_second_answer_too() -> None:
    meter = Meter()
    meter.begin(1)
    meter.take({"a": Sample(1)})
    meter.take({"a": Sample(1), "b": Sample(50, 50)})
    meter.take({"a": Sample(4), "b": Sample(60, 50)})
    meter.take({"a": Sample(4), "b": Sample(62, 50)})
    assert meter.sample == Sample(5, 0)


def test_a_proxy_that_starts_anew_goes_on_counting() -> None:
    meter = Meter()
    meter.begin(1)
    for count in (10, 10, 30, 4, 6):
        meter.take({"a": Sample(count)})
    assert meter.sample.requests == 26


def test_a_new_step_counts_from_nothing() -> None:
    meter = Meter()
    meter.begin(1)
    for count in (0, 0, 9):
        meter.take({"a": Sample(count)})
    meter.begin(2)
    assert meter.sample == Sample()


def test_what_is_missing_is_said() -> None:
    assert Answers({}).missing == ""
    assert Answers({}, silent=("default/web",)).missing == "proxy default/web does not answer"
    assert Answers({}, ("x",), ("b", "c")).missing == "host b (with 1 more) is away"
