"""check: what is found, said and counted in meshes of every kind, and with none."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest

from retia.api import schema
from retia.api.local import Probe
from retia.cli.checks import fetch
from tests.unit.api.fakes import FakeBackend
from tests.unit.cli import fake_agent
from tests.unit.cli.conftest import Ran, Run
from tests.unit.cli.fake_agent import FakeAgent

YEAR = 365 * 86_400


def now() -> int:
    """Asked when a test runs, not when it is collected: in a long run that may be many minutes earlier."""
    return int(time.time())


@pytest.fixture
def whole(backend: FakeBackend, home: Path) -> FakeBackend:
    home.chmod(0o700)
    backend.info = schema.StatusInfo(
        version="0.1.0", authority=[schema.Certificate(subject="root", expiry=now() + 10 * YEAR)]
    )
    backend.proxies = [
        schema.ProxyInfo(id="default/web-0", state="ready", connected=True, certificate_expiry=now() + 80_000)
    ]
    return backend


def look(run: Run, home: Path, agent: FakeAgent | None = None) -> Ran:
    with fake_agent.serving(agent or FakeAgent(), home / "run" / "agent.sock"):
        return run("check")


def verdicts(ran: Ran, category: str) -> list[str]:
    block = ran.out.partition(f"{category}\n")[2].partition("\n\n")[0]
    return [line.strip() for line in block.splitlines()]


def test_with_nothing_running_it_is_well_with_warnings(run: Run, home: Path) -> None:
    ran = run("check")
    assert ran.code == 0, ran.out
    assert verdicts(ran, "controller") == [
        "! running: not running for this RETIA_HOME",
        "-> start a mesh with 'retia up'",
    ]
    order = [
        line for line in ran.out.splitlines() if line and line[0] not in " 0123456789" and ":" not in line
    ]
    assert order[:7] == [
        "environment",
        "capture",
        "controller",
        "agent",
        "identity",
        "proxies",
        "configuration",
    ]
    assert ran.out.splitlines()[-1].startswith("all well, ")


def test_a_healthy_mesh(run: Run, home: Path, whole: FakeBackend) -> None:
    agent = FakeAgent(probes=(Probe(name="bpf", ok=True), Probe(name="cgroup2", ok=False, reason="no mount")))
    ran = look(run, home, agent)
    assert ran.code == 0, ran.out
    assert verdicts(ran, "capture")[:2] == ["✓ bpf", "! cgroup2: no mount"]
    assert "✓ root: lapses in 10y" in ran.out or "✓ root: lapses in 36" in ran.out
    assert "✓ default/web-0: synced" in ran.out


def test_a_controller_that_is_stopped_is_found_soon(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel takes the connection for it; nobody answers."""
    monkeypatch.setattr(fetch, "ANSWER_S", 0.2)
    (home / "run").mkdir(parents=True, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as stopped:
        stopped.bind(str(home / "run" / "api.sock"))
        stopped.listen(8)
        ran = run("check")
    assert ran.code == 1
    assert "did not answer GET /v1/status within 0.2 s" in ran.out


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            lambda b: setattr(b, "hosts", [schema.HostInfo(id="h2", clock_skew_s=-400, connected=True)]),
            "✗ the clock of host h2: 400.0 s from the controller's",
        ),
        (
            lambda b: setattr(
                b,
                "proxies",
                [
                    schema.ProxyInfo(
                        id="p", connected=True, nacks=[schema.Nack(resource="CDS c", error="bad")]
                    )
                ],
            ),
            "✗ p: refused CDS c: bad",
        ),
        (
            lambda b: setattr(
                b,
                "proxies",
                [schema.ProxyInfo(id="p", state="ready", connected=True, certificate_expiry=now() - 60)],
            ),
            "✗ p: its certificate lapsed 1m",
        ),
        (
            lambda b: setattr(b, "info", b.info.model_copy(update={"version": "0.4.0"})),
            "✗ version: it is 0.4.0, this command 0.1.0; only neighbouring minor versions work together",
        ),
        (
            lambda b: setattr(
                b,
                "info",
                b.info.model_copy(
                    update={"authority": [schema.Certificate(subject="root", expiry=now() - 60)]}
                ),
            ),
            "✗ root: lapsed 1m",
        ),
        (
            lambda b: setattr(
                b,
                "info",
                b.info.model_copy(
                    update={
                        "findings": [
                            schema.Finding(
                                code="RT1", level="error", message="wrong", object="VirtualService/default/x"
                            )
                        ]
                    }
                ),
            ),
            "✗ VirtualService/default/x: wrong [RT1]",
        ),
    ],
    ids=["skew", "nack", "certificate", "version", "authority", "finding"],
)
def test_what_fails_a_check(run: Run, home: Path, whole: FakeBackend, change: object, line: str) -> None:
    change(whole)  # type: ignore[operator]
    ran = look(run, home)
    assert ran.code == 1
    assert line in ran.out


def test_an_agent_without_its_controller(run: Run, home: Path) -> None:
    ran = look(run, home, FakeAgent(connected=False))
    assert ran.code == 1
    assert "✗ session with the controller: away for 0s" in ran.out


def test_a_frozen_registry_is_a_warning(run: Run, home: Path, whole: FakeBackend) -> None:
    whole.info = whole.info.model_copy(update={"registry_frozen": True, "registry_reason": "just started"})
    ran = look(run, home)
    assert ran.code == 0
    assert "! registry: no endpoint is withdrawn: just started" in ran.out


def test_json_has_every_result(run: Run, home: Path) -> None:
    facts = run("check", "-o", "json").json
    assert facts["ok"] is True
    assert {"category", "name", "verdict", "reason", "remedy"} == set(facts["results"][0])


def test_a_state_folder_that_others_may_read_is_wrong(run: Run, home: Path) -> None:
    home.mkdir(mode=0o755)
    ran = run("check")
    assert ran.code == 1
    assert f"-> chmod 700 {home}: it holds private keys" in ran.out
