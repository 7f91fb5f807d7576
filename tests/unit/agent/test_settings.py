"""The agent's command line, and the errors that a person can make in it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import retia
from retia.agent.identity import IdentityUnavailable
from retia.agent.paths import HomeError, Paths, slug
from retia.agent.settings import SettingsError, parse, with_default_port
from retia.agent.worker import check_token, controller_address, instance_suffix, resolvers_of


def test_defaults(tmp_path: Path) -> None:
    settings, is_worker = parse(["--home", str(tmp_path)])
    assert (settings.home, settings.index, settings.capture, is_worker) == (tmp_path, None, "auto", False)
    assert controller_address(settings, 2) == "127.0.0.1:15212"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--index", "16"], "--index 16: a mesh's index is 0 to 15"),
        (["--gateway-port", "70000"], "--gateway-port 70000"),
        (["--host", "a/b"], "--host: host id 'a/b'"),
        (["--advertise-address", "myhost"], "an IP address is needed"),
        (["--advertise-address", "127.0.0.1"], "can't reach a loopback address"),
    ],
)
def test_wrong_values_are_said(arguments: list[str], message: str) -> None:
    with pytest.raises(SettingsError, match=message.replace("'", ".")):
        parse(arguments)


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("10.0.0.1", "10.0.0.1:15012"),
        ("10.0.0.1:9", "10.0.0.1:9"),
        ("mesh.example.com", "mesh.example.com:15012"),
        ("fd00::1", "[fd00::1]:15012"),
        ("[fd00::1]", "[fd00::1]:15012"),
        ("[fd00::1]:9", "[fd00::1]:9"),
    ],
)
def test_the_port_may_be_left_out(text: str, full: str) -> None:
    assert with_default_port(text, 15012) == full


def test_other_hosts_instances_bear_their_hosts_name() -> None:
    assert instance_suffix("Big_Host.example", "127.0.0.1:15012") == ""
    assert instance_suffix("Big_Host.example", "10.0.0.1:15012") == ".big-host-example"


def test_a_wrong_resolver_is_said() -> None:
    settings, _ = parse(["--resolver", "10.0.0.1:dns"])
    with pytest.raises(SettingsError, match="--resolver"):
        resolvers_of(settings)


@pytest.mark.parametrize("token", ["", "nonsense", "retia1.AAAA", "retia2.AAAA"])
def test_a_token_that_can_not_be_used_is_said(token: str) -> None:
    with pytest.raises(IdentityUnavailable) as caught:
        check_token(token)
    assert "\n" not in str(caught.value)


def test_a_home_that_is_too_long_for_sockets_is_said() -> None:
    with pytest.raises(HomeError, match="too long for unix sockets: at most"):
        Paths(Path("/" + "x" * 100)).prepare()


def test_names_become_file_names() -> None:
    assert slug("default/reviews-v1-0") == "default.reviews-v1-0"
    assert "/" not in slug("../../etc/passwd")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--index", "99"], "retia agent: --index 99: a mesh's index is 0 to 15\n"),
        (["--envoy", "/nowhere/envoy"], "retia agent: --envoy /nowhere/envoy: there is no executable file\n"),
    ],
)
def test_a_wrong_command_line_ends_with_one_line(arguments: list[str], message: str, tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "retia.agent.main", "--home", str(tmp_path), *arguments]
    env = {"PYTHONPATH": str(Path(retia.__file__).parent.parent)}
    result = subprocess.run(argv, capture_output=True, text=True, env=env, timeout=60)
    assert (result.returncode, result.stderr) == (78, message)


def test_the_join_token_may_stand_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("retia1.a.b\n")

    assert parse(["--join-file", str(file)])[0].join == "retia1.a.b"
    assert parse(["--join-file", str(file), "--join", "other"])[0].join == "other"


def test_a_join_file_may_be_gone_once_it_was_used(tmp_path: Path) -> None:
    assert parse(["--join-file", str(tmp_path / "gone")])[0].join == ""


def test_a_join_file_that_is_none_is_said(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"--join-file .*: Is a directory"):
        parse(["--join-file", str(tmp_path)])
