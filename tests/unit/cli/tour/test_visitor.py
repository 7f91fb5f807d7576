"""The visitor, run as the tour runs it but outside any mesh."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from retia.cli.tour.client import PROGRAM


class Echo(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/away":
            self.send_response(302)
            self.send_header("location", "/elsewhere")
            self.send_header("content-length", "0")
            self.end_headers()
            return
        body = json.dumps({"method": self.command, "who": self.headers.get("end-user", "")}).encode()
        self.send_response(418 if self.path == "/teapot" else 200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *args: Any) -> None:
        return


@pytest.fixture
def url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def talk(*commands: dict[str, Any]) -> list[dict[str, Any]]:
    """Runs the visitor over some commands and returns its answers, the greeting left out."""
    done = subprocess.run(
        [sys.executable, str(PROGRAM)],
        input="".join(json.dumps(c) + "\n" for c in commands),
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    greeting, *answers = map(json.loads, done.stdout.splitlines())
    assert "ready" in greeting
    return answers


def test_a_call_returns_status_headers_body_and_time(url: str) -> None:
    (reply,) = talk({"op": "http", "url": url, "headers": {"end-user": "jason"}})
    (answer,) = reply["answers"]
    assert answer["status"] == 200
    assert json.loads(answer["body"]) == {"method": "GET", "who": "jason"}
    assert 0 < answer["seconds"] < 10


def test_errors_and_redirects_are_answers(url: str) -> None:
    replies = talk({"op": "http", "url": f"{url}/teapot"}, {"op": "http", "url": f"{url}/away"})
    teapot, away = (r["answers"][0] for r in replies)
    assert teapot["status"] == 418
    assert (away["status"], away["headers"]["location"]) == (302, "/elsewhere")


def test_many_calls_one_after_the_other_or_at_once(url: str) -> None:
    replies = talk(
        {"op": "http", "url": url, "count": 3}, {"op": "http", "url": url, "count": 4, "parallel": 4}
    )
    assert [len(r["answers"]) for r in replies] == [3, 4]


def test_no_answer_is_status_0_with_the_reason(url: str) -> None:
    (reply,) = talk({"op": "http", "url": "http://127.0.0.1:1/"})
    assert reply["answers"][0]["status"] == 0
    assert "refused" in reply["answers"][0]["error"]


def test_a_name_that_does_not_resolve_is_a_failure() -> None:
    missing, here = talk({"op": "resolve", "name": "nothing.invalid"}, {"op": "resolve", "name": "127.0.0.1"})
    assert "failed" in missing
    assert here == {"addresses": ["127.0.0.1"]}
