"""Many protocols through the mesh, each with a real client and a real server that know nothing of it."""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from retia.cli.tour.stage import Stage
from tests.support.privileges import need_tool

pytestmark = [pytest.mark.privileged, pytest.mark.timeout(180)]

FOLDER = Path(__file__).parent / "protocols"
PORTS = {
    "web": "8000/http",
    "grpc": "50051/grpc",
    "websocket": "8765/http",
    "smtp": "2525",  # undeclared, and the server speaks first
    "tls": "8443/tls",
    "redis": "6379/tcp",
    "store": "6379/tcp",
    "sessions": "6379/tcp",
    "h2c": "8081/http2",
}
BY_KEYS = """\
apiVersion: retia.dev/v1alpha1
kind: RedisRoute
metadata: {name: store}
spec:
  host: store
  routes:
  - {prefix: "session:", removePrefix: true, destination: {host: sessions}}
"""


def certificate(path: Path, name: str) -> None:
    """A self-signed certificate with its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + private)


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What the client says of all its calls."""
    for tool, package in (("redis-server", "redis-server"), ("nginx", "nginx-light"), ("curl", "curl")):
        need_tool(tool, package)
    folder = tmp_path_factory.mktemp("protocols")
    certificate(folder / "tls.pem", "tls")
    environment = {"PEER_CERTIFICATE": str(folder / "tls.pem"), "PEER_FOLDER": str(folder)}
    services = {
        name: {
            "command": [sys.executable, str(FOLDER / "servers.py"), name],
            "ports": [port],
            "environment": environment,
        }
        for name, port in PORTS.items()
    }
    (folder / "retia.yaml").write_text(json.dumps({"services": services}))
    with Stage(folder / "retia.yaml", capture="ebpf") as stage:
        stage.apply_text(BY_KEYS)
        retia = [sys.executable, "-c", "from retia.cli.main import main; raise SystemExit(main())"]
        done = subprocess.run(
            [*retia, "run", "--service-account", "caller", "--", sys.executable, str(FOLDER / "client.py")],
            env={**stage.environment, **environment},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.stdout, done.stderr
        yield json.loads(done.stdout.splitlines()[-1])


def test_http_1(said: dict[str, Any]) -> None:
    assert said["http"] == "web /a?b=1"


def test_long_bodies_both_ways(said: dict[str, Any]) -> None:
    assert said["long_body"] == [3_000_000, 2_000_000]


def test_server_sent_events_arrive_one_by_one(said: dict[str, Any]) -> None:
    assert said["events"] == ["data: 0", "data: 1", "data: 2"]


def test_an_offer_to_upgrade_to_h2c_is_no_harm(said: dict[str, Any]) -> None:
    assert said["upgrade_to_h2c"] == "web /up"


def test_http_2_by_prior_knowledge(said: dict[str, Any]) -> None:
    assert said["prior_knowledge"] == "HTTP/2.0 2"


def test_grpc_streams_both_ways(said: dict[str, Any]) -> None:
    found = {key: said["grpc"][key] for key in ("unary", "down", "up", "both")}
    assert found == {
        "unary": "hello world",
        "down": ["0", "1", "2"],
        "up": "42",
        "both": ["got one", "got two"],
    }


def test_grpc_deadlines_and_statuses_reach_the_caller(said: dict[str, Any]) -> None:
    assert said["grpc"]["slow"] == ["DEADLINE_EXCEEDED", True]
    assert said["grpc"]["fails"] == ["FAILED_PRECONDITION", True]


def test_web_sockets(said: dict[str, Any]) -> None:
    assert said["websocket"] == ["echo one", "echo two"]


def test_a_server_that_speaks_first_on_an_undeclared_port(said: dict[str, Any]) -> None:
    assert said["smtp"] == "250"


def test_tls_of_the_applications_own_is_not_opened(said: dict[str, Any]) -> None:
    assert said["tls"] == "secret word\n"


def test_redis_as_opaque_tcp(said: dict[str, Any]) -> None:
    assert said["redis"] == ["OK", "v", "PONG"]


def test_redis_commands_go_by_their_keys(said: dict[str, Any]) -> None:
    assert said["redis_by_keys"] == {
        "written": ["OK", "OK"],
        "through": ["x", "y"],
        "sessions": ["x", ""],
        "several": ["x", "y"],
    }
