"""run and forward: arguments, the request to the agent, and the program that follows."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from retia.api import schema
from retia.api.local import PortSpec, UpstreamSpec
from retia.cli.errors import UsageError
from retia.cli.launch import parse_pairs, parse_port, parse_upstream
from tests.unit.api.fakes import FakeBackend
from tests.unit.cli import fake_agent
from tests.unit.cli.conftest import Run
from tests.unit.cli.fake_agent import FakeAgent

RETIA = [sys.executable, "-c", "from retia.cli.main import main; main()"]


@pytest.fixture
def agent(home: Path) -> Iterator[FakeAgent]:
    fake = FakeAgent()
    with fake_agent.serving(fake, home / "run" / "agent.sock"):
        yield fake


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("80", PortSpec(number=80)),
        ("80/http", PortSpec(number=80, protocol="http")),
        ("80:8080", PortSpec(number=80, app_port=8080)),
        ("80:8080/grpc", PortSpec(number=80, app_port=8080, protocol="grpc")),
    ],
)
def test_ports(text: str, wanted: PortSpec) -> None:
    assert parse_port(text) == wanted


@pytest.mark.parametrize("text", ["", "x", "0", "65536", "80/", "80/smtp", "80:", "80:0x1", "-1", "80:70000"])
def test_wrong_ports(text: str) -> None:
    with pytest.raises(UsageError, match=r"^--port"):
        parse_port(text)


def test_upstreams() -> None:
    assert parse_upstream("a.b:1=2") == UpstreamSpec(host="a.b", port=1, local_port=2)
    assert parse_upstream("a:1") == UpstreamSpec(host="a", port=1)
    for wrong in ("a", "a:", "A:1", "a:0", "a:1=", "a:1=x", "a:1=70000"):
        with pytest.raises(UsageError, match=r"^--upstream"):
            parse_upstream(wrong)


def test_pairs() -> None:
    assert parse_pairs("--label", ["a=1", "b="]) == {"a": "1", "b": ""}
    for wrong in (["a"], ["=1"], ["a=1", "a=2"]):
        with pytest.raises(UsageError):
            parse_pairs("--label", wrong)


def test_the_program_takes_the_commands_place(agent: FakeAgent, home: Path) -> None:
    code = "import os, json; print(json.dumps([os.getpid(), dict(os.environ)])); raise SystemExit(7)"
    options = ["run", "--service", "web", "--version", "v2", "--port", "80:8080/http", "--label", "a=b"]
    more = [
        "--annotation",
        "c=d",
        "-n",
        "shop",
        "--service-account",
        "robot",
        "--upstream",
        "db:5432=15432",
        "--capture",
        "explicit",
    ]
    process = subprocess.Popen(
        [*RETIA, *options, *more, "--", sys.executable, "-c", code],
        env={**os.environ, "RETIA_HOME": str(home), "REMOVED": "x"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    out, err = process.communicate(timeout=20)
    assert process.returncode == 7, err
    pid, environment = json.loads(out)
    assert pid == process.pid
    assert environment["http_proxy"] == "http://127.0.0.1:1"
    assert "REMOVED" not in environment
    assert err == "retia: shop/web-v2-0: explicit capture: a test; db:5432 at 127.0.0.1:15432\n"
    launch = agent.launches["shop/web-v2-0"]
    assert launch.pid == process.pid
    assert launch.ports == (PortSpec(number=80, app_port=8080, protocol="http"),)
    assert (launch.labels, launch.annotations) == ({"a": "b", "version": "v2"}, {"c": "d"})
    assert (launch.service_account, launch.capture) == ("robot", "explicit")
    assert launch.upstreams == (UpstreamSpec(host="db", port=5432, local_port=15432),)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--port", "80", "--", "sleep", "1"], 2, "retia: --port needs --service"),
        (["--service", "Web", "--", "sleep", "1"], 2, "retia: --service is 'Web', which is no DNS label"),
        (
            ["--service", "web", "--port", "80", "--port", "80/http", "--", "sleep", "1"],
            2,
            "stands here twice",
        ),
        (["--version", "v1", "--label", "version=v2", "--", "sleep", "1"], 2, "contradict each other"),
        (["--", "no-such-program-here"], 1, "retia: there is no program 'no-such-program-here' in PATH"),
        (["--", "/tmp"], 1, "retia: /tmp is a folder, not a program"),
        ([], 2, "retia: Missing argument"),
    ],
)
def test_what_is_refused_before_the_agent_is_asked(
    run: Run, home: Path, arguments: list[str], code: int, message: str
) -> None:
    ran = run("run", *arguments)
    assert ran.code == code
    assert message in ran.err


def test_without_an_agent_it_says_what_to_do(run: Run, home: Path) -> None:
    ran = run("run", "--", "sleep", "1")
    assert ran.code == 1
    assert ran.err == (
        f"retia: no agent answers at {home}/run/agent.sock; start one with 'retia up' or 'retia agent'\n"
    )


def test_options_after_the_command_are_the_commands_own(agent: FakeAgent, home: Path) -> None:
    done = subprocess.run(
        [*RETIA, "run", "sh", "-c", "echo $0 --version", "x"],
        env={**os.environ, "RETIA_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    assert done.stdout == "x --version\n"


def test_forward_is_a_client_with_one_upstream(agent: FakeAgent, backend: FakeBackend, home: Path) -> None:
    backend.services = [
        schema.ServiceDetail(
            host="web.default.svc.cluster.local",
            namespace="default",
            name="web",
            ports=[schema.ServicePortInfo(number=80, protocol="http")],
        )
    ]
    process = subprocess.Popen(
        [*RETIA, "forward", "web", "--local-port", "18080"],
        env={**os.environ, "RETIA_HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert process.stdout.readline() == "http://127.0.0.1:18080\n"
    (launch,) = agent.launches.values()
    assert launch.service == ""
    assert launch.capture == "explicit"
    assert [(u.host, u.port, u.local_port) for u in launch.upstreams] == [
        ("web.default.svc.cluster.local", 80, 18080)
    ]
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=10)
    assert process.returncode == 130
    assert "Traceback" not in err


def test_forward_to_a_port_that_is_not_there(run: Run, backend: FakeBackend, agent: FakeAgent) -> None:
    backend.services = [
        schema.ServiceDetail(
            host="web.default.svc.cluster.local",
            namespace="default",
            name="web",
            ports=[schema.ServicePortInfo(number=80, protocol="http")],
        )
    ]
    ran = run("forward", "web", "81")
    assert (ran.code, ran.err) == (2, "retia: web.default.svc.cluster.local has no port 81; it has 80\n")
