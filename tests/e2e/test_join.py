"""Joining a mesh as a newcomer does: what is typed, what is answered, and with which exit status."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from retia.cli.tour.processes import retia, wait_until
from retia.cli.tour.stage import free_port
from tests.support.hosts import Home, Network, workloads

STATUS_WRONG_SETTINGS = 78
"""EX_CONFIG of sysexits.h."""

pytestmark = pytest.mark.timeout(150)


class Controllers:
    """Two meshes, to mix up."""

    def __init__(self) -> None:
        self.mine, self.other = Home(), Home()
        self.addresses = {}
        for home in (self.mine, self.other):
            port = free_port()
            home.controller("--port", str(port), "--metrics-port", str(free_port()))
            self.addresses[home.home] = f"127.0.0.1:{port}"

    def where(self, home: Home) -> tuple[str, str]:
        return "--controller", self.addresses[home.home]


@pytest.fixture(scope="module")
def meshes() -> Iterator[Controllers]:
    both = Controllers()
    yield both
    both.mine.close()
    both.other.close()
    assert both.mine.left + both.other.left == []


@pytest.fixture
def host() -> Iterator[Home]:
    with Home("host") as home:
        yield home
    assert home.left == []


def refused(host: Home, *options: str) -> str:
    """The one line for a person with which an agent ends that can't join."""
    name = f"agent-{len(list(host.home.glob('log/*')))}"
    host.forget_index()
    process = host.start(name, retia("agent", "--host", host.name, "--capture", "explicit", *options))
    assert process.wait(30) == STATUS_WRONG_SETTINGS
    said = [line for line in host.log(name).read_text().splitlines() if not line.startswith("{")]
    assert len(said) == 1, said
    assert said[0].startswith("retia agent: ")
    return said[0].removeprefix("retia agent: ")


def test_a_token_that_lets_nobody_in(meshes: Controllers, host: Home) -> None:
    """All that a token can be, and what is said of it, is tried in tests/integration/control/test_join.py."""
    mine = meshes.where(meshes.mine)
    missing = refused(host, *mine)
    assert missing.startswith("this host has not joined a mesh: give --join TOKEN, from 'retia token create'")
    wrong = refused(host, *mine, "--join", "TOKEN")
    assert wrong == "this is no join token: a join token begins with retia1."
    other = refused(host, *mine, "--join", meshes.other.token())
    assert "is not the one that made this join token" in other


def test_a_used_token_and_a_host_of_another_mesh(meshes: Controllers, host: Home) -> None:
    mine, other = meshes.where(meshes.mine), meshes.where(meshes.other)
    token = meshes.mine.token()
    host.agent("--capture", "explicit", *mine, "--join", token)
    with Home("second") as second:
        said = refused(second, *mine, "--join", token)
        assert said == (
            "the controller refuses the join: the join token was used by host host already; make one for "
            "each host with 'retia token create'"
        )
    host.stop("agent")
    assert "belongs to mesh cluster.local" in refused(host, *other)
    # What was refused is not lost: with its own mesh's controller it goes on, with another's token it moves.
    host.forget_index()
    host.agent("--capture", "explicit", *mine)
    host.stop("agent")
    host.forget_index()
    host.agent("--capture", "explicit", *other, "--join", meshes.other.token())


def test_addresses_that_cannot_be_right(meshes: Controllers, host: Home) -> None:
    token = ("--join", meshes.mine.token())
    assert refused(host, *token, "--controller", "10.0.0.5:port").startswith(
        "--controller: controller address"
    )
    for address, said in {
        "127.0.0.1": "other hosts can't reach a loopback address",
        "192.0.2.77": "no interface of this host has it",
        "first-host": "an IP address is needed",
    }.items():
        line = refused(host, *token, *meshes.where(meshes.mine), "--advertise-address", address)
        assert line.startswith(f"--advertise-address {address}: {said}")
    alone = host.command("agent", *token)
    assert alone.returncode == 2
    assert (
        alone.stderr == "retia: --join needs --controller: the token does not say where the controller is\n"
    )


def test_a_controller_that_is_not_there_is_named_and_waited_for(meshes: Controllers, host: Home) -> None:
    nobody = f"127.0.0.1:{free_port()}"
    join = ("--join", meshes.mine.token(), "--controller", nobody)
    host.start("agent", retia("agent", "--capture", "explicit", "--log-format", "text", *join))
    log = host.log("agent")
    assert wait_until(lambda: "can't be reached" in log.read_text(), 20), log.read_text()
    line = next(line for line in log.read_text().splitlines() if "can't be reached" in line)
    assert nobody in line
    assert "Connection refused" in line


@pytest.mark.privileged
def test_two_commands_on_the_first_host_and_one_on_the_second() -> None:
    """As docs/howto/second-host.md says; the controller is open to other hosts only once that is asked."""
    with Network("one", "two") as network:
        one, two = network.hosts
        up = one.command("up", "--detach")
        assert up.returncode == 0, up.stderr
        assert not answers(two, one.address), "it listens for others although nobody asked"
        told = one.command("token", "create").stderr
        assert "start it with 'retia up --advertise-address ADDRESS'" in told
        assert one.command("down").returncode == 0

        up = one.command("up", "--detach", "--advertise-address", one.address)
        assert up.returncode == 0, up.stderr
        made = one.command("token", "create")
        typed = made.stderr.splitlines()[-1].partition("on the other host: retia ")[2].split()
        words = {"TOKEN": made.stdout.strip(), "ITS-ADDRESS": two.address}
        two.agent(*[words.get(word, word) for word in typed[1:]])
        two.run("ratings", "v1")
        assert wait_until(lambda: set(workloads(one).values()) == {"two"}, 20)
        answer = one.visitor().http("http://ratings:8000/")
        assert (answer.status, answer.json()["who"]) == (200, "ratings on two")
        check = two.command("check")
        assert "session with the controller: 10.231.0.1:15012" in check.stdout
        assert one.command("down").returncode == 0
    assert network.left == []


def answers(host: Home, address: str) -> bool:
    """Whether somebody takes connections at the controller's port."""
    with host.inside(), socket.socket() as probe:
        probe.settimeout(2)
        return probe.connect_ex((address, 15012)) == 0
