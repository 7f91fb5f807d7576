"""What a person sees while the shop runs."""

from __future__ import annotations

from collections import deque

from retia.cli.tour.show import hints, traffic


def test_shares_of_the_last_calls_are_shown_by_who_answered() -> None:
    calls = deque(["reviews v1"] * 9 + ["reviews v2"])
    assert traffic(calls) == "last 10 calls to reviews: reviews v1 90 %, reviews v2 10 %"
    assert traffic(deque()) == ""


def test_the_hints_can_be_copied() -> None:
    text = hints("/tmp/retia-demo-x", 8123, "ebpf")
    assert "http://127.0.0.1:8123/" in text
    assert "export RETIA_HOME=/tmp/retia-demo-x" in text
    assert "config/steps/canary.yaml" in text
    assert "eBPF capture" in text
