"""When a mesh file runs the counting service, and how."""

from __future__ import annotations

import os
import textwrap
from pathlib import Path

import pytest

from retia.cli.up.positions import ProblemsError
from retia.cli.up.spec import Slot, Wanted, resolve

POLICY = """
apiVersion: retia.dev/v1alpha1
kind: RateLimitPolicy
metadata: {name: all}
spec: {limits: [{name: all, scope: SCOPE, requests: 10}]}
"""
COUNTER = Slot("retia-system", "ratelimit", "", 0)


def wanted(folder: Path, text: str) -> Wanted:
    environ = {"PATH": os.environ["PATH"], "REDIS": "redis.example"}
    return resolve(textwrap.dedent(text), "retia.yaml", folder, environ)


@pytest.mark.parametrize(("scope", "runs"), [("Global", True), ("Local", False), ("Elsewhere", False)])
def test_a_global_limit_is_reason_enough(tmp_path: Path, scope: str, runs: bool) -> None:
    (tmp_path / "limits.yaml").write_text(POLICY.replace("SCOPE", scope))
    found = wanted(tmp_path, "config: limits.yaml")
    assert (COUNTER in found.specs) is runs


def test_a_service_of_that_name_is_left_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "limits.yaml").write_text(POLICY.replace("SCOPE", "Global"))
    found = wanted(tmp_path, "config: limits.yaml\nservices: {ratelimit: {command: sleep 1}}")
    assert list(found.specs) == [Slot("default", "ratelimit", "", 0)]


def test_it_starts_first_and_is_kept_running(tmp_path: Path) -> None:
    found = wanted(tmp_path, "ratelimit: {}\nservices: {web: {command: sleep 1}}")
    assert found.order == ("ratelimit", "web")
    assert found.care["ratelimit"].restart == "always"
    spec = found.specs[COUNTER]
    assert [(port.number, port.protocol) for port in spec.ports] == [(8081, "grpc")]
    assert spec.command[-2:] == ("--listen", "127.0.0.1:${port:8081}")


def test_it_may_count_in_redis(tmp_path: Path) -> None:
    text = "ratelimit: {redis: 'redis://${REDIS}:6379/1', replicas: 2}"
    found = wanted(tmp_path, text)
    assert len(found.specs) == 2
    assert found.specs[COUNTER].command[-2:] == ("--redis", "redis://redis.example:6379/1")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ratelimit: {replicas: 2}", "need redis"),
        ("ratelimit: {replicas: 2, redis: 'redis://r', metrics_port: 9000}", "metrics_port"),
        ("ratelimit: {redis: 'http://r'}", "redis"),
        ("ratelimit: {redis: 'redis://${NOWHERE}'}", "NOWHERE"),
        ("ratelimit: {}\nservices: {ratelimit: {command: sleep 1}}", "twice"),
    ],
)
def test_what_cannot_be(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ProblemsError, match=said):
        wanted(tmp_path, text)
