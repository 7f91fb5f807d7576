"""Rules for connections in a whole mesh: captured by the kernel, split in the caller's proxy."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator

import pytest

from retia.cli.tour.client import Visitor
from retia.cli.tour.processes import wait_until
from retia.cli.tour.stage import Stage

pytestmark = [pytest.mark.privileged, pytest.mark.timeout(120)]

GREETER = """
import os, socketserver

class Greet(socketserver.StreamRequestHandler):
    def handle(self):
        self.wfile.write(os.environ["NAME"].encode() + b"\\n")
        for line in self.rfile:
            self.wfile.write(line)

socketserver.ThreadingTCPServer.allow_reuse_address = True
socketserver.ThreadingTCPServer(("0.0.0.0", 5432), Greet).serve_forever()
"""
CALLER = """
import collections, http.server, json, socket

class Caller(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        said = collections.Counter()
        for _ in range(int(self.path.strip("/"))):
            try:
                with socket.create_connection(("db", 5432), 10) as connection:
                    with connection.makefile("rwb", 0) as lines:
                        name = lines.readline().decode().strip()
                        lines.write(b"echo\\n")
                        said[name if lines.readline() == b"echo\\n" else "lost"] += 1
            except OSError as error:
                said[repr(error)] += 1
        body = json.dumps(said).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass

http.server.ThreadingHTTPServer(("0.0.0.0", 8000), Caller).serve_forever()
"""
MESH = """
services:
  caller:
    command: {python} caller.py
    ports: [8000/http]
  db:
    command: {python} greeter.py
    ports: [5432/tcp]
    versions:
      - {{name: v1, environment: {{NAME: v1}}}}
      - {{name: v2, environment: {{NAME: v2}}}}
  spare:
    command: {python} greeter.py
    ports: [5432/tcp]
    environment: {{NAME: spare}}
"""
SUBSETS = """
kind: DestinationRule
apiVersion: networking.istio.io/v1
metadata: {name: db}
spec: {host: db, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]}
"""


def route(*destinations: str) -> str:
    return (
        "kind: VirtualService\napiVersion: networking.istio.io/v1\nmetadata: {name: db}\n"
        f"spec: {{hosts: [db], tcp: [{{route: [{', '.join(destinations)}]}}]}}"
    )


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("connections")
    (folder / "retia.yaml").write_text(MESH.format(python=sys.executable))
    (folder / "caller.py").write_text(CALLER)
    (folder / "greeter.py").write_text(GREETER)
    with Stage(folder / "retia.yaml", capture="ebpf") as started:
        started.apply_text(SUBSETS)
        yield started
    assert started.left == []


@pytest.fixture(scope="module")
def visitor(stage: Stage) -> Visitor:
    return stage.visitor()


def said(visitor: Visitor, count: int) -> dict[str, int]:
    answer = visitor.http(f"http://caller:8000/{count}")
    assert answer.status == 200, answer
    found: dict[str, int] = json.loads(answer.body)
    return found


def test_connections_are_split_and_follow_changes(stage: Stage, visitor: Visitor) -> None:
    """Through an internal listener, to one destination without it, and back to the service itself."""
    assert set(said(visitor, 20)) == {"v1", "v2"}

    one, two = (
        "{destination: {host: db, subset: v1}, weight: 3}",
        "{destination: {host: db, subset: v2}, weight: 1}",
    )
    stage.apply_text(route(one, two))
    found = said(visitor, 100)
    assert set(found) == {"v1", "v2"}, found
    assert 55 <= found["v1"] <= 92, found

    stage.apply_text(route("{destination: {host: spare}}"))
    assert wait_until(lambda: said(visitor, 5) == {"spare": 5}, 10)

    stage.apply_text(
        route("{destination: {host: db, subset: v2}, weight: 1}", "{destination: {host: spare}, weight: 1}")
    )
    assert wait_until(lambda: set(said(visitor, 12)) == {"v2", "spare"}, 10)

    stage.client.delete_object("VirtualService", "default", "db")
    assert wait_until(lambda: set(said(visitor, 12)) == {"v1", "v2"}, 10)


def test_rules_hold_while_the_controller_hangs_for_who_never_connected(stage: Stage) -> None:
    """The standby copy has the internal listener as well, and an Envoy that restarts gets it again."""
    stage.apply_text(
        route("{destination: {host: db, subset: v1}, weight: 1}", "{destination: {host: spare}, weight: 1}")
    )
    with stage.visitor(account="late") as late:
        time.sleep(1)  # the standby copy is seconds old by design
        controller = stage.client.status().pid
        os.kill(controller, signal.SIGSTOP)
        try:
            greetings = {late.tcp("db", 5432, "echo")[0] for _ in range(12)}
        finally:
            os.kill(controller, signal.SIGCONT)
    assert greetings == {"v1", "spare"}
