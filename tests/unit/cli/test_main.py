"""What holds for every command: help with examples, exit codes, one-line errors, quiet ends."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
import typer

from retia.cli import main
from tests.unit.api.fakes import FakeBackend
from tests.unit.cli.conftest import Run

ROOT = typer.main.get_command(main.app)


def commands(group: click.Command, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], click.Command]]:
    if not hasattr(group, "commands"):
        return [(path, group)]
    return [found for name, sub in group.commands.items() for found in commands(sub, (*path, name))]


ALL = commands(ROOT)
NAMES = [" ".join(path) for path, _ in ALL]
TEXT_ONLY = {"run", "gateway", "demo", "controller", "agent", "ratelimit"}
"""They become, or show, programs: nothing to print as JSON."""


@pytest.mark.parametrize("path", [path for path, _ in ALL], ids=NAMES)
def test_help_has_three_examples_that_parse(path: tuple[str, ...], run: Run) -> None:
    shown = run(*path, "--help")
    assert shown.code == 0
    examples = [line.strip() for line in shown.out.partition("Examples:")[2].splitlines()[1:4]]
    assert len(examples) == 3
    for example in examples:
        assert f"retia {' '.join(path)}" in re.sub(r"--home \S+ ", "", example), example


@pytest.mark.parametrize(("path", "command"), ALL, ids=NAMES)
def test_every_command_that_prints_data_can_print_json(path: tuple[str, ...], command: click.Command) -> None:
    options = {option for parameter in command.params for option in parameter.opts}
    assert ("-o" in options) == (path[0] not in TEXT_ONLY)


def test_commands_are_those_of_the_reference() -> None:
    wanted = "up down run apply get delete forward services workloads proxies check logs demo version"
    assert set(wanted.split()) <= set(NAMES)
    assert {"proxy config", "token create", "controller", "agent"} <= set(NAMES)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "retia: No such command 'nothing'. (see 'retia --help')"),
        (["get"], "retia: Missing argument 'kind'. (see 'retia get --help')"),
        (["get", "vs", "-o", "xml"], "'xml' is not one of 'table', 'yaml', 'json'"),
        (["proxy", "config", "web-0", "nonsense"], "'nonsense' is not one of"),
    ],
    ids=["command", "argument", "format", "part"],
)
def test_wrong_usage_is_one_line_and_exit_2(arguments: list[str], message: str, run: Run) -> None:
    ran = run(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err
    assert ran.err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments", [["services"], ["get", "vs"], ["proxies"], ["status"], ["token", "create"]]
)
def test_without_a_controller_it_says_what_to_do(arguments: list[str], run: Run, home: Path) -> None:
    ran = run(*arguments)
    assert ran.code == 1
    assert ran.err == (
        f"retia: no controller is running for this RETIA_HOME: there is no socket {home}/run/api.sock; "
        "start a mesh with 'retia up' or 'retia controller'\n"
    )


def test_home_may_be_an_option_and_must_be_short(run: Run) -> None:
    ran = run("--home", "/tmp/" + "x" * 100, "services")
    assert ran.code == 1
    assert "the kernel's limit for socket paths leaves" in ran.err


def test_a_closed_pipe_is_no_traceback(backend: FakeBackend, home: Path) -> None:
    code = "from retia.cli.main import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "--home", str(home), "services", "-o", "json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout and process.stderr
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(20) == 0


def test_completion_is_offered_for_the_usual_shells(run: Run) -> None:
    assert "--install-completion" in run("--help").out
