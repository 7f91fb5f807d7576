"""gateway: what the agent is asked for, and what the process becomes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.cli import fake_agent
from tests.unit.cli.conftest import Run
from tests.unit.cli.fake_agent import FakeAgent

RETIA = [sys.executable, "-c", "from retia.cli.main import main; main()"]


@pytest.fixture
def agent(home: Path) -> Iterator[FakeAgent]:
    fake = FakeAgent()
    with fake_agent.serving(fake, home / "run" / "agent.sock"):
        yield fake


def test_the_agent_is_asked_for_a_workload_without_a_program(agent: FakeAgent, home: Path) -> None:
    options = ["--port", "80:8080", "--port", "443:8443", "--address", "127.0.0.1", "-n", "infra", "--http3"]
    with subprocess.Popen(
        [*RETIA, "gateway", "egress", *options, "--trusted-proxies", "2", "--label", "team=net"],
        env={**os.environ, "RETIA_HOME": str(home)},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stderr is not None
            said = process.stderr.readline()
        finally:
            process.terminate()
            process.wait(20)
    assert "infra/egress-0: gateway egress listens on 127.0.0.1" in said
    assert "port 80 at 127.0.0.1:8080" in said
    launch = agent.launches["infra/egress-0"]
    assert launch.pid == process.pid
    assert launch.capture == "explicit"
    assert (launch.labels["istio"], launch.labels["team"]) == ("egressgateway", "net")
    assert launch.annotations == {
        "retia.dev/gateway": "egress",
        "retia.dev/gateway-bind": "127.0.0.1",
        "retia.dev/gateway-ports": "80:8080,443:8443",
        "retia.dev/http3": "true",
        "retia.dev/trusted-proxies": "2",
    }
    assert [(port.number, port.app_port) for port in launch.ports] == [(80, 8080), (443, 8443)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["Ingress"], "NAME is 'Ingress', which is no DNS label"),
        (["ingress", "--port", "80:x"], "--port '80:x' is not PORT[:BOUND]"),
        (["ingress", "--port", "80:0"], "--port '80:0' is not PORT[:BOUND]"),
        ([], "Missing argument"),
    ],
)
def test_what_is_refused_before_the_agent_is_asked(run: Run, arguments: list[str], message: str) -> None:
    ran = run("gateway", *arguments)
    assert ran.code == 2
    assert message in ran.err
