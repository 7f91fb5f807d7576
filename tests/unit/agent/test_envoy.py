"""Envoy as a program: its bootstrap, and what is asked of it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from retia.agent import envoy
from retia.agent.envoy import Binary, EnvoyError

REDACTED = "[redacted]"


@pytest.mark.parametrize(
    ("output", "version"),
    [
        ("\n/x/envoy  version: 9e55809/1.40.0/Clean/RELEASE/BoringSSL\n", "1.40.0"),
        ("envoy  version: 0123abc/1.41.2-dev/Modified/RELEASE/BoringSSL", "1.41.2"),
    ],
)
def test_the_version_is_read(output: str, version: str) -> None:
    assert envoy.parse_version(output, Path("/x/envoy")) == version


def test_another_program_is_no_envoy() -> None:
    with pytest.raises(EnvoyError, match="is no Envoy"):
        envoy.parse_version("GNU bash, version 5.2", Path("/bin/bash"))


def test_another_version_is_said() -> None:
    assert Binary(Path("/x"), "1.40.9").warning == ""
    assert "tested with 1.40" in Binary(Path("/x"), "1.41.0").warning


def test_the_installed_program_is_found() -> None:
    assert envoy.find_path().name == "envoy"


def test_a_given_program_must_be_one(tmp_path: Path) -> None:
    (tmp_path / "envoy").write_text("")
    for path in (tmp_path / "envoy", tmp_path / "none", tmp_path):
        with pytest.raises(EnvoyError, match="there is no executable file"):
            envoy.find_path(str(path))


def test_the_bootstrap_is_accepted(tmp_path: Path) -> None:
    envoy.write_bootstrap(envoy.bootstrap("default/a-1", "default/a-1", tmp_path), tmp_path)
    path = tmp_path / "bootstrap.json"
    assert path.stat().st_mode & 0o777 == 0o600
    argv = [envoy.find_path(), "--mode", "validate", "-c", path, "--log-level", "warning"]
    result = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert "deprecated" not in result.stderr.lower()


def test_the_bootstrap_opens_no_port(tmp_path: Path) -> None:
    assert "port_value" not in json.dumps(envoy.bootstrap("p", "w", tmp_path))


@pytest.mark.parametrize(
    ("target", "allowed"),
    [
        ("/config_dump", True),
        ("/config_dump?include_eds", True),
        ("/stats?filter=^cluster", False),
        ("/stats?filter=cluster.*&format=json", True),
        ("/quitquitquit", False),
        ("/healthcheck/fail", False),
        ("/drain_listeners?graceful", False),
        ("/logging?level=debug", False),
        ("/runtime_modify?a=b", False),
        ("/config_dump HTTP/1.1\r\nX: y", False),
        ("/config_dump?x\r\nGET /quitquitquit", False),
        ("http://elsewhere/config_dump", False),
        ("", False),
    ],
)
def test_only_reading_is_allowed(target: str, allowed: bool) -> None:
    assert envoy.is_allowed(target) == allowed


def test_keys_are_taken_out() -> None:
    dump = {
        "configs": [
            {"tls_certificate": {"private_key": {"inline_bytes": "c2VjcmV0"}, "certificate_chain": "x"}},
            [{"password": {"inline_string": "p"}}],
        ]
    }
    found = json.loads(envoy.redact(json.dumps(dump).encode()))
    assert found["configs"][0]["tls_certificate"] == {"private_key": REDACTED, "certificate_chain": "x"}
    assert found["configs"][1][0]["password"] == REDACTED
    assert envoy.redact(b"private_key\n-----BEGIN PRIVATE KEY-----") == b"[redacted]"
    assert envoy.redact(b"cluster.x.upstream_rq_total: 1") == b"cluster.x.upstream_rq_total: 1"


@pytest.mark.parametrize(
    ("wire", "body"),
    [(b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n", b"abcde"), (b"0\r\n\r\n", b"")],
)
def test_bodies_in_chunks(wire: bytes, body: bytes) -> None:
    assert envoy.dechunk(wire) == body


@pytest.mark.parametrize("wire", [b"", b"zz\r\n", b"5\r\nab"])
def test_broken_chunks_are_an_error(wire: bytes) -> None:
    with pytest.raises(ValueError, match=r".*"):
        envoy.dechunk(wire)


async def test_nobody_answers(tmp_path: Path) -> None:
    with pytest.raises(EnvoyError, match="does not answer"):
        await envoy.ask(tmp_path / "admin.sock", "/ready")
    assert (await envoy.sample(tmp_path, 0)).state == "DOWN"
    with pytest.raises(EnvoyError, match="not ready after"):
        await envoy.wait_ready(tmp_path, 0.05)
