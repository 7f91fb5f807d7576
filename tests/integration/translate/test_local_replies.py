"""A real Envoy that fails in every way it is asked to: which code its own responses carry."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from google.protobuf import json_format

from retia.cli.tour.stage import free_port
from retia.config.replies import HEADER
from retia.translate import local_replies
from tests.integration.xds.conftest import _binary

FILTERS = "type.googleapis.com/envoy.extensions.filters"
ALWAYS = {"default_value": {"numerator": 100}}


@dataclass(frozen=True)
class Answer:
    status: int
    code: str
    proxy_status: str


@dataclass(frozen=True)
class Failing:
    """The Envoy, by its port."""

    port: int

    def get(self, path: str, host: str = "shop", body: bytes | None = None) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        with contextlib.closing(connection):
            connection.request("POST" if body else "GET", path, body=body, headers={"Host": host})
            answer = connection.getresponse()
            answer.read()
            return Answer(
                answer.status, answer.headers.get(HEADER, ""), answer.headers.get("proxy-status", "")
            )

    def say(self, request: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            connection.sendall(request)
            return connection.recv(4096)


@pytest.fixture(scope="module")
def envoy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Failing]:
    folder = tmp_path_factory.mktemp("replies")
    with contextlib.ExitStack() as stack:
        ports = {
            "good": stack.enter_context(_server(_answer)),
            "silent": stack.enter_context(_server(_keep_silent)),
            "closing": stack.enter_context(_server(_close)),
            "full": stack.enter_context(_full()),
            "dead": free_port(),
        }
        port = free_port()
        config = folder / "envoy.json"
        config.write_text(json.dumps(_bootstrap(port, ports)))
        process = stack.enter_context(_running(config, folder / "log"))
        _wait_for(port, process, folder / "log")
        yield Failing(port)


@pytest.mark.parametrize(
    ("path", "status", "code", "error"),
    [
        ("/refused", 503, "RT5004", "connection_refused"),
        ("/unreachable", 503, "RT5004", ""),
        ("/tls", 503, "RT5004", ""),
        ("/none", 503, "RT5003", "destination_unavailable"),
        ("/unknown", 503, "RT5002", "destination_unavailable"),
        ("/slow", 504, "RT5009", "http_response_timeout"),
        ("/idle", 504, "RT5018", "http_response_timeout"),
        ("/closed", 503, "RT5007", "connection_terminated"),
        ("/retried", 503, "RT5007", "connection_terminated"),
        ("/fault", 418, "RT5012", "http_request_error"),
        ("/circuit", 503, "RT5010", "connection_limit_reached"),
        ("/denied", 403, "RT5015", "http_request_denied"),
        ("/nothing", 404, "RT5001", "destination_not_found"),
    ],
)
def test_a_response_of_the_proxy_says_why(
    envoy: Failing, path: str, status: int, code: str, error: str
) -> None:
    answer = envoy.get(path)
    assert (answer.status, answer.code) == (status, code)
    assert f"error={error}" in answer.proxy_status
    assert answer.proxy_status.count("error=") == 1


def test_more_requests_than_allowed(envoy: Failing) -> None:
    assert envoy.get("/limited").status == 200
    answer = envoy.get("/limited")
    assert (answer.status, answer.code) == (429, "RT5013")
    assert answer.proxy_status.count("error=") == 1


def test_an_unknown_host(envoy: Failing) -> None:
    assert envoy.get("/good", host="elsewhere").code == "RT5001"


def test_a_body_that_is_too_large(envoy: Failing) -> None:
    answer = envoy.get("/good", body=b"x" * 100)
    assert (answer.status, answer.code) == (413, "RT5017")


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET / HTTP/1.1\r\nno header\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: shop\r\nx: " + b"a" * 70_000 + b"\r\n\r\n",
    ],
    ids=["not HTTP", "headers too large"],
)
def test_a_request_that_is_not_well_formed(envoy: Failing, request_bytes: bytes) -> None:
    assert f"{HEADER}: RT5020".encode() in envoy.say(request_bytes)


@pytest.mark.parametrize(("path", "status"), [("/good", 200), ("/direct", 403), ("/redirect", 301)])
def test_what_a_service_or_a_rule_answers_has_no_code(envoy: Failing, path: str, status: int) -> None:
    assert envoy.get(path) == Answer(status, "", "")


# -- an Envoy and servers that misbehave -------------------------------------------------------------------


def _bootstrap(port: int, ports: dict[str, int]) -> dict[str, Any]:
    common = http_connection_manager_pb2.HttpConnectionManager()
    local_replies.put(common)
    local_replies.put_for(
        common, [f"envoy.filters.http.{name}" for name in ("buffer", "local_ratelimit", "rbac")]
    )
    virtual_host = {"name": "shop", "domains": ["shop"], "routes": _routes()}
    manager = {
        "@type": f"{FILTERS}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "route_config": {"name": "r", "validate_clusters": False, "virtual_hosts": [virtual_host]},
        "http_filters": [
            _filter("buffer", ".http.buffer.v3.Buffer", max_request_bytes=10),
            _filter("fault", ".http.fault.v3.HTTPFault"),
            _filter("limit", ".http.local_ratelimit.v3.LocalRateLimit", stat_prefix="limit"),
            _filter("access", ".http.rbac.v3.RBAC"),
            _filter("router", ".http.router.v3.Router"),
        ],
        **json_format.MessageToDict(common, preserving_proto_field_name=True),
    }
    listener = {
        "name": "in",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{"filters": [{"name": "manager", "typed_config": manager}]}],
    }
    tls = {"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"}
    nothing = {"max_connections": 0, "max_pending_requests": 0, "max_requests": 0}
    clusters = [
        _cluster("refused", ports["dead"]),
        _cluster("unreachable", ports["full"]),
        _cluster("tls", ports["good"], transport_socket={"name": "tls", "typed_config": tls}),
        _cluster("none", 0),
        _cluster("silent", ports["silent"]),
        _cluster("closing", ports["closing"]),
        _cluster("circuit", ports["good"], circuit_breakers={"thresholds": [nothing]}),
        _cluster("good", ports["good"]),
    ]
    return {
        "node": {"id": "default/web-1", "cluster": "test"},
        "static_resources": {"listeners": [listener], "clusters": clusters},
    }


def _filter(name: str, message: str, **config: Any) -> dict[str, Any]:
    return {"name": name, "typed_config": {"@type": FILTERS + message, **config}}


def _cluster(name: str, port: int, **more: Any) -> dict[str, Any]:
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": address}}]}] if port else []
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "0.3s",
        "load_assignment": {"cluster_name": name, "endpoints": endpoints},
        **more,
    }


def _routes() -> list[dict[str, Any]]:
    abort = {"http_status": 418, "percentage": {"numerator": 100}}
    limit = {
        "@type": f"{FILTERS}.http.local_ratelimit.v3.LocalRateLimit",
        "stat_prefix": "limit",
        "token_bucket": {"max_tokens": 1, "tokens_per_fill": 1, "fill_interval": "600s"},
        "filter_enabled": ALWAYS,
        "filter_enforced": ALWAYS,
    }
    policy = {"permissions": [{"any": True}], "principals": [{"any": True}]}
    rules = {"action": "DENY", "policies": {"nobody": policy}}
    access = {"@type": f"{FILTERS}.http.rbac.v3.RBACPerRoute", "rbac": {"rules": rules}}
    fault = {"@type": f"{FILTERS}.http.fault.v3.HTTPFault", "abort": abort}
    retry = {"retry_on": "reset", "num_retries": 1}
    return [
        _route("/refused", "refused"),
        _route("/unreachable", "unreachable"),
        _route("/tls", "tls"),
        _route("/none", "none"),
        _route("/unknown", "unknown"),
        _route("/slow", "silent", timeout="0.2s"),
        _route("/idle", "silent", timeout="0s", idle_timeout="0.2s"),
        _route("/closed", "closing"),
        _route("/retried", "closing", retry_policy=retry),
        {**_route("/fault", "good"), "typed_per_filter_config": {"fault": fault}},
        _route("/circuit", "circuit"),
        {**_route("/limited", "good"), "typed_per_filter_config": {"limit": limit}},
        {**_route("/denied", "good"), "typed_per_filter_config": {"access": access}},
        {"match": {"path": "/direct"}, "direct_response": {"status": 403}},
        {"match": {"path": "/redirect"}, "redirect": {"path_redirect": "/good"}},
        _route("/good", "good"),
    ]


def _route(path: str, cluster: str, **action: Any) -> dict[str, Any]:
    return {"match": {"path": path}, "route": {"cluster": cluster, **action}}


@contextlib.contextmanager
def _running(config: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    arguments = ["-c", str(config), "--concurrency", "1", "--use-dynamic-base-id", "-l", "warning"]
    with log.open("wb") as output:
        process = subprocess.Popen([_binary(), *arguments], stdout=output, stderr=output)
    try:
        yield process
    finally:
        process.kill()
        process.wait(10)


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.02)
    raise AssertionError(f"Envoy did not start: {log.read_text()[-1000:]}")


@contextlib.contextmanager
def _server(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    listener = socket.create_server(("127.0.0.1", 0))
    accepted: list[socket.socket] = []

    def run() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                accepted.append(connection)
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for connection in accepted:
            connection.close()
        thread.join(5)


@contextlib.contextmanager
def _full() -> Iterator[int]:
    """A server that accepts nothing and whose queue is full: connecting to it takes for ever."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                waiting.connect(listener.getsockname())
        yield listener.getsockname()[1]


def _answer(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while connection.recv(65536):
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")


def _keep_silent(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while connection.recv(65536):
            pass


def _close(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.recv(65536)
        connection.close()
