"""Traffic lanes with real requests through three services, of which one does not pass baggage on."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from retia.cli.tour.client import Visitor
from retia.cli.tour.processes import end, retia, wait_until
from retia.cli.tour.stage import Stage

pytestmark = [pytest.mark.privileged, pytest.mark.timeout(120)]

PROGRAM = """
import http.server, json, os, urllib.request

class Hop(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1

    def do_GET(self):
        me = os.environ["NAME"] + "/" + os.environ["VERSION"]
        baggage = self.headers.get("baggage")
        way = [[me, baggage]]
        if os.environ.get("NEXT"):
            forwarded = {"baggage": baggage} if baggage and os.environ.get("FORWARD") else {}
            request = urllib.request.Request(os.environ["NEXT"], headers=forwarded)
            way += json.loads(urllib.request.urlopen(request, timeout=5).read())["way"]
        body = json.dumps({"way": way}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass

http.server.ThreadingHTTPServer(("0.0.0.0", 8000), Hop).serve_forever()
"""

MESH = """
services:
  front:
    command: {python} hop.py
    ports: [8000/http]
    environment: {{NAME: front, VERSION: v1, NEXT: "http://middle:8000/", FORWARD: "1"}}
  middle:
    command: {python} hop.py
    ports: [8000/http]
    versions:
      - {{name: v1, environment: {{NAME: middle, VERSION: v1, NEXT: "http://back:8000/", FORWARD: "1"}}}}
      - {{name: deaf, environment: {{NAME: middle, VERSION: deaf, NEXT: "http://back:8000/"}}}}
  back:
    command: {python} hop.py
    ports: [8000/http]
    versions:
      - {{name: v1, environment: {{NAME: back, VERSION: v1}}}}
      - {{name: v2, environment: {{NAME: back, VERSION: v2}}}}
"""

RULES = """
kind: VirtualService
apiVersion: networking.istio.io/v1
metadata: {name: middle}
spec:
  hosts: [middle]
  http: [{route: [{destination: {host: middle, subset: v1}}]}]
---
kind: DestinationRule
apiVersion: networking.istio.io/v1
metadata: {name: middle}
spec: {host: middle, subsets: [{name: v1, labels: {version: v1}}]}
---
kind: VirtualService
apiVersion: networking.istio.io/v1
metadata: {name: back}
spec:
  hosts: [back]
  http: [{route: [{destination: {host: back, subset: v1}}]}]
---
kind: DestinationRule
apiVersion: networking.istio.io/v1
metadata: {name: back}
spec: {host: back, subsets: [{name: v1, labels: {version: v1}}]}
---
apiVersion: retia.dev/v1alpha1
kind: TrafficLane
metadata: {name: alice}
spec:
  entry: {service: front}
  match: [{headers: {x-user: {exact: alice}}}]
  versions: {back: {version: v2}}
---
apiVersion: retia.dev/v1alpha1
kind: TrafficLane
metadata: {name: bob}
spec:
  entry: {service: front}
  match: [{cookies: {who: {exact: bob}}}]
  versions:
    middle: {version: deaf}
    back: {version: v2}
"""

FRONT = "http://front:8000/"
ALICE, BOB = {"x-user": "alice"}, {"cookie": "a=b; who=bob"}


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("lanes")
    (folder / "retia.yaml").write_text(MESH.format(python=sys.executable))
    (folder / "hop.py").write_text(PROGRAM)
    with Stage(folder / "retia.yaml", capture="ebpf") as started:
        started.apply_text(RULES)
        yield started
    assert started.left == []


@pytest.fixture(scope="module")
def visitor(stage: Stage) -> Visitor:
    return stage.visitor()


def way(visitor: Visitor, headers: dict[str, str]) -> list[str]:
    """The hops of one call; what went wrong instead, where something did."""
    answer = visitor.http(FRONT, headers=headers)
    return [hop for hop, _ in answer.json()["way"]] if answer.status == 200 else [str(answer)]


def test_others_stay_on_the_baseline(stage: Stage, visitor: Visitor) -> None:
    for headers in ({}, {"x-user": "alicex"}, {"baggage": "retia-lane=carol"}):
        assert way(visitor, headers) == ["front/v1", "middle/v1", "back/v1"], headers


def test_a_lane_reaches_the_last_service_through_those_that_have_no_version_of_it(
    stage: Stage, visitor: Visitor
) -> None:
    assert way(visitor, ALICE) == ["front/v1", "middle/v1", "back/v2"]


def test_other_members_of_the_baggage_are_kept(stage: Stage, visitor: Visitor) -> None:
    answer = visitor.http(FRONT, headers={**ALICE, "baggage": "a=b;p=1, c=d"})
    assert {baggage for _, baggage in answer.json()["way"]} == {"a=b;p=1,c=d,retia-lane=alice"}


def test_a_lane_that_a_request_is_on_is_kept_at_an_entry(stage: Stage, visitor: Visitor) -> None:
    assert way(visitor, {**BOB, "baggage": "retia-lane=alice"}) == ["front/v1", "middle/v1", "back/v2"]


def test_a_program_that_does_not_pass_baggage_on_ends_the_lane(stage: Stage, visitor: Visitor) -> None:
    assert way(visitor, BOB) == ["front/v1", "middle/deaf", "back/v1"]


@contextmanager
def developer(stage: Stage, folder: Path) -> Iterator[None]:
    """A version of one's own, for one's own requests."""
    (folder / "hop.py").write_text(PROGRAM)
    environment = {**stage.environment, "NAME": "middle", "VERSION": "mine"}
    environment |= {"NEXT": "http://back:8000/", "FORWARD": "1"}
    run = retia("run", "--service", "middle", "--version", "v1", "--lane", "alice", "--port", "8000/http")
    with stage.log.open("ab") as log:
        process = subprocess.Popen(
            [*run, "--", sys.executable, str(folder / "hop.py")], env=environment, stdout=log, stderr=log
        )
    try:
        yield
    finally:
        end(process, grace_s=3)


def test_a_developers_version_serves_the_lane_only_and_its_end_gives_the_baseline_back(
    stage: Stage, visitor: Visitor, tmp_path: Path
) -> None:
    mine = ["front/v1", "middle/mine", "back/v2"]
    with developer(stage, tmp_path):
        assert wait_until(lambda: way(visitor, ALICE) == mine, 20)
        assert all(way(visitor, {}) == ["front/v1", "middle/v1", "back/v1"] for _ in range(20))
        told = subprocess.run(
            retia("lane", "status", "alice"),
            env=stage.environment,
            capture_output=True,
            text=True,
            timeout=20,
        )
        assert "label retia.dev/lane" in told.stdout
        assert "versions" in told.stdout
    assert wait_until(lambda: way(visitor, ALICE) == ["front/v1", "middle/v1", "back/v2"], 20)
