"""Limits with real requests: refused with what a client needs to know, counted together, open or closed."""

from __future__ import annotations

import base64
import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2
from grpclib.health.v1 import health_pb2

from retia.cli.tour.client import Answer, Visitor
from retia.cli.tour.processes import wait_until
from retia.cli.tour.stage import Stage

pytestmark = [pytest.mark.privileged, pytest.mark.timeout(120)]

PROGRAM = """
import http.server, json, time

class Hello(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1

    def do_GET(self):
        if self.path.startswith("/slow"):
            time.sleep(1.5)
        body = json.dumps({"path": self.path, "text": "hello " * 500}).encode()
        self.send_response(500 if self.path.startswith("/fail") else 200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.do_GET()

    def log_message(self, *args):
        pass

http.server.ThreadingHTTPServer(("0.0.0.0", 8000), Hello).serve_forever()
"""

MESH = """
services:
  hello:
    command: {python} hello.py
    ports: [8000/http]
    replicas: 2
  other:
    command: {python} hello.py
    ports: [8000/http]
  rpc:
    command: {python} rpc.py
    ports: [9000/grpc]
ratelimit: {{}}
"""
RPC = """
import asyncio
from grpclib.health.service import Health
from grpclib.server import Server

async def main():
    server = Server([Health()])
    await server.start("0.0.0.0", 9000)
    await server.wait_closed()

asyncio.run(main())
"""
HELLO = "http://hello:8000/"
OTHER = "http://other:8000/"


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("limits")
    (folder / "retia.yaml").write_text(MESH.format(python=sys.executable))
    (folder / "hello.py").write_text(PROGRAM)
    (folder / "rpc.py").write_text(RPC)
    with Stage(folder / "retia.yaml", capture="ebpf") as started:
        yield started
    assert started.left == []


@pytest.fixture(scope="module")
def visitor(stage: Stage) -> Visitor:
    return stage.visitor()


@pytest.fixture(autouse=True)
def no_policies(stage: Stage) -> Iterator[None]:
    yield
    for kind in ("RateLimitPolicy", "OverloadPolicy", "HttpPolicy", "VirtualService"):
        for found in stage.client.list_objects(kind):
            stage.client.delete_object(kind, found.namespace, found.name)


def policy(name: str, limits: str, target: str = "{kind: Service, name: hello}", more: str = "") -> str:
    return f"""
apiVersion: retia.dev/v1alpha1
kind: RateLimitPolicy
metadata: {{name: {name}}}
spec:
  targetRefs: [{target}]
  limits: {limits}
  {more}
"""


def until_limited(visitor: Visitor, url: str = HELLO, status: int = 429, **headers: str) -> Answer:
    """The first refusal. The callers' open connections keep the old chains until those have drained."""
    refused: list[Answer] = []

    def limited() -> bool:
        refused.extend(a for a in visitor.many(url, 5, headers=headers) if a.status == status)
        return bool(refused)

    assert wait_until(limited, 25, 0.2), "no request was refused"
    return refused[0]


def settled(stage: Stage, service: str) -> None:
    """Until callers' open connections have left the chains of before (see ``--drain-time-s``)."""
    proxies = [stage.proxy_of(each.id) for each in stage.workloads(service)]

    def left() -> int:
        return sum(proxy.stats()["listener_manager.total_filter_chains_draining"] for proxy in proxies)

    assert wait_until(lambda: left() == 0, 25, 0.2), f"{left()} chains are still draining"


def counting_process(stage: Stage) -> int:
    """The process of this mesh's counting service."""
    home = f"RETIA_HOME={stage.home}".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
            if b"retia.ratelimit.main" in words and home in (folder / "environ").read_bytes():
                return int(folder.name)
        except OSError:
            continue
    raise AssertionError("the counting service does not run")


def counted(answers: list[Answer]) -> Counter[int]:
    return Counter(answer.status for answer in answers)


def test_a_refused_request_says_why_and_what_is_left(stage: Stage, visitor: Visitor) -> None:
    stage.apply_text(policy("all", "[{name: all, requests: 3, per: Hour}]"))
    answer = until_limited(visitor)
    assert answer.headers["x-ratelimit-limit"].startswith("3")
    assert answer.headers["x-ratelimit-remaining"] == "0"
    assert answer.headers["retia-code"] == "RT5013"
    assert visitor.http(OTHER).status == 200


def test_users_are_counted_apart(stage: Stage, visitor: Visitor) -> None:
    limits = "[{name: user, requests: 5, per: Hour, by: [{type: Header, name: x-user}]}]"
    stage.apply_text(policy("all", limits, "{kind: Service, name: other}"))
    until_limited(visitor, OTHER, **{"x-user": "ann"})
    settled(stage, "other")
    assert counted(visitor.many(OTHER, 7, headers={"x-user": "bob"})) == {200: 5, 429: 2}


def test_only_what_the_condition_says_is_counted(stage: Stage, visitor: Visitor) -> None:
    when = "[{path: {value: /api}, source: {serviceAccounts: [visitor]}, remoteAddresses: [127.0.0.0/8]}]"
    limits = f"[{{name: api, requests: 2, per: Hour, when: {when}}}]"
    stage.apply_text(policy("all", limits, "{kind: Service, name: other}"))
    until_limited(visitor, OTHER + "api/x")
    settled(stage, "other")
    visitor.many(OTHER + "api", 2)
    assert counted(visitor.many(OTHER + "apis", 10)) == {200: 10}
    assert counted(visitor.many(OTHER + "api", 2)) == {429: 2}


def test_a_rule_has_one_limit_for_all_its_matches(stage: Stage, visitor: Visitor) -> None:
    stage.apply_text("""
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: hello}
spec:
  hosts: [hello]
  http:
    - name: few
      match: [{uri: {prefix: /a}}, {uri: {prefix: /b}}]
      route: [{destination: {host: hello}}]
    - route: [{destination: {host: hello}}]
""")
    target = "{kind: VirtualService, name: hello, sectionName: few}"
    stage.apply_text(policy("rule", "[{name: few, requests: 1, per: Hour}]", target))
    until_limited(visitor, HELLO + "a")  # the filter is in the caller's chains from now on
    stage.apply_text(policy("rule", "[{name: few, requests: 6, per: Hour}]", target))
    answers = [visitor.http(HELLO + path) for path in ("a", "b") * 5]
    assert counted(answers) == {200: 6, 429: 4}
    assert counted(visitor.many(HELLO + "c", 5)) == {200: 5}
    limits = "[{name: %s, scope: Global, requests: %d, per: Hour}]"
    stage.apply_text(policy("rule", limits % ("first", 1), target))
    until_limited(visitor, HELLO + "a")
    stage.apply_text(policy("rule", limits % ("second", 4), target))
    answers = [visitor.http(HELLO + path) for path in ("a", "b") * 5]
    assert counted(answers) == {200: 4, 429: 6}
    assert counted(visitor.many(HELLO + "c", 5)) == {200: 5}


def test_a_global_limit_holds_for_all_instances_together(stage: Stage, visitor: Visitor) -> None:
    by = "by: [{type: Header, name: x-user}]"
    stage.apply_text(policy("all", f"[{{name: user, scope: Global, requests: 10, per: Hour, {by}}}]"))
    until_limited(visitor, **{"x-user": "ann"})
    settled(stage, "hello")
    answers = visitor.many(HELLO, 30, headers={"x-user": "bob"})
    assert counted(answers) == {200: 10, 429: 20}
    assert answers[0].headers["ratelimit-policy"] == '"user";q=10;w=3600'
    assert answers[-1].headers["ratelimit"].startswith('"user";r=0;t=')
    assert int(answers[-1].headers["retry-after"]) > 0
    assert answers[-1].headers["retia-code"] == "RT5013"


def test_shadow_refuses_nothing(stage: Stage, visitor: Visitor) -> None:
    limits = """
    - {name: local, requests: 1, per: Hour, shadow: true}
    - {name: global, scope: Global, requests: 1, per: Hour, shadow: true}
    - {name: real, requests: 20, per: Hour}"""
    stage.apply_text(policy("all", limits, "{kind: Service, name: other}"))
    until_limited(visitor, OTHER)
    stage.apply_text(policy("all", limits.replace("20", "1000"), "{kind: Service, name: other}"))
    settled(stage, "other")
    assert counted(visitor.many(OTHER, 30)) == {200: 30}


@pytest.mark.parametrize(("choice", "status"), [("Allow", 200), ("Deny", 503)])
def test_while_nobody_counts(stage: Stage, visitor: Visitor, choice: str, status: int) -> None:
    limits = "[{name: all, scope: Global, requests: 1, per: Hour}]"
    name = choice.lower()
    target = "{kind: Service, name: other}"
    stage.apply_text(policy(name, limits, target, f"onUnavailable: {choice}"))
    until_limited(visitor, OTHER)
    settled(stage, "other")
    counter = counting_process(stage)
    os.kill(counter, signal.SIGSTOP)
    try:
        answers = visitor.many(OTHER, 3)
        assert counted(answers) == {status: 3}
        assert all(answer.seconds < 2 for answer in answers)
    finally:
        os.kill(counter, signal.SIGCONT)
    assert wait_until(lambda: visitor.http(OTHER).status == 429, 10)


def test_critical_requests_have_room_of_their_own(stage: Stage, visitor: Visitor) -> None:
    stage.apply_text("""
apiVersion: retia.dev/v1alpha1
kind: OverloadPolicy
metadata: {name: other}
spec:
  targetRefs: [{kind: Service, name: other}]
  retryBudget: {}
  adaptiveConcurrency: {}
  admissionControl: {}
  priority:
    maxConcurrency: 1
    critical: [{headers: [{name: x-critical, value: "yes"}]}]
""")

    def sheds() -> bool:
        return 503 in counted(visitor.many(OTHER + "slow", 4, parallel=4))

    assert wait_until(sheds, 25), "nothing was shed"
    answers = visitor.many(OTHER + "slow", 4, parallel=4, headers={"x-critical": "yes"})
    assert counted(answers) == {200: 4}
    assert counted(visitor.many(OTHER, 20)) == {200: 20}


def test_a_failing_service_is_spared(stage: Stage, visitor: Visitor) -> None:
    stage.apply_text("""
apiVersion: retia.dev/v1alpha1
kind: OverloadPolicy
metadata: {name: other}
spec:
  targetRefs: [{kind: Service, name: other}]
  admissionControl: {samplingWindow: 5s, minRequestsPerSecond: 1}
""")
    refused: list[Answer] = []

    def spared() -> bool:
        answers = visitor.many(OTHER + "fail", 30, parallel=5)
        refused.extend(a for a in answers if a.headers.get("retia-code") == "RT5016")
        return bool(refused)

    assert wait_until(spared, 30), "every request reached the failing service"
    assert refused[0].status == 503


def test_json_clients_call_a_grpc_service(stage: Stage, visitor: Visitor) -> None:
    files = descriptor_pb2.FileDescriptorSet()
    health_pb2.DESCRIPTOR.CopyToProto(files.file.add())
    encoded = base64.b64encode(files.SerializeToString()).decode()
    stage.apply_text(f"""
apiVersion: retia.dev/v1alpha1
kind: HttpPolicy
metadata: {{name: rpc}}
spec:
  targetRefs: [{{kind: Service, name: rpc}}]
  transcoding: {{descriptor: {encoded}, services: [grpc.health.v1.Health], autoMapping: true}}
""")
    url = "http://rpc:9000/grpc.health.v1.Health/Check"

    def check(body: str) -> Answer:
        return visitor.http(url, method="POST", body=body, headers={"content-type": "application/json"})

    assert wait_until(lambda: check("{}").status == 200, 25, 0.2), str(check("{}"))
    assert check("{}").json() == {"status": "SERVING"}
    assert check('{"service": "nobody"}').status == 404


def test_responses_are_compressed_and_long_requests_refused(stage: Stage, visitor: Visitor) -> None:
    stage.apply_text("""
apiVersion: retia.dev/v1alpha1
kind: HttpPolicy
metadata: {name: other}
spec:
  targetRefs: [{kind: Service, name: other}]
  compression: {algorithms: [Brotli, Gzip]}
  maxRequestBytes: 1000
""")

    def encoding(accepted: str) -> str:
        answer = visitor.http(OTHER, headers={"accept-encoding": accepted})
        return answer.headers.get("content-encoding", "")

    assert wait_until(lambda: encoding("br, gzip") == "br", 25)
    assert encoding("gzip") == "gzip"
    assert encoding("identity") == ""
    assert visitor.http(OTHER, method="POST", body="x" * 900).status == 200
    refused = visitor.http(OTHER, method="POST", body="x" * 2000)
    assert refused.status == 413
    assert refused.headers["retia-code"] == "RT5017"
