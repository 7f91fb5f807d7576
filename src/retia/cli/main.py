"""The command ``retia``: the table of commands, and the one place where a command ends.

Command modules import what is heavy (HTTP, pydantic, Rich) inside their functions, so that ``retia run``,
which stands before every program's start, is quick.

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from retia.cli import (
    agent,
    analyze,
    apply,
    backup,
    bypass,
    check,
    controller,
    delete,
    demo,
    diff,
    down,
    explain,
    forward,
    gateway,
    get,
    history,
    hosts,
    lane,
    logs,
    output,
    proxies,
    proxy_config,
    ratelimit,
    restore,
    rollout,
    run,
    services,
    settings,
    status,
    token,
    undo,
    version,
    why,
    workloads,
)
from retia.cli.errors import FAILED, INTERRUPTED, USAGE, CliError, ClosedPipeError
from retia.cli.session import Session
from retia.cli.up import command as up

_USAGE_ERROR: type[Exception] = typer.BadParameter.__mro__[1]
"""Typer's newer versions bring a click of their own, whose exceptions have no public name."""

_OTHERS: dict[str, Any] = {"allow_extra_args": True, "ignore_unknown_options": True}

app = typer.Typer(
    name="retia",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _main(
    ctx: typer.Context,
    home: Annotated[
        str,
        typer.Option("--home", metavar="DIR", help="The state folder; absent: RETIA_HOME, then ~/.retia."),
    ] = "",
) -> None:
    """Retia: a service mesh for plain hosts, on stock Envoy.

    Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
    """
    ctx.obj = Session.of(home, os.environ)


def _add(
    group: typer.Typer, name: str, function: Callable[..., None], examples: tuple[str, ...], **settings: Any
) -> None:
    """Registers a command; its help is its docstring with the examples below."""
    text = (function.__doc__ or "").strip()
    paragraphs = [" ".join(p.split()) for p in text.split("\n\n")]
    shown = "\n".join(["\b", "Examples:", *(f"  {example}" for example in examples)])
    group.command(name, help="\n\n".join([*paragraphs, shown]), short_help=paragraphs[0], **settings)(
        function
    )


_proxy = typer.Typer(help="Look into one proxy.", no_args_is_help=True, rich_markup_mode=None)
_rollout = typer.Typer(
    help="Canaries that take over step by step.", no_args_is_help=True, rich_markup_mode=None
)
_lane = typer.Typer(help="Versions for some requests only.", no_args_is_help=True, rich_markup_mode=None)
_token = typer.Typer(help="Tokens with which hosts join.", no_args_is_help=True, rich_markup_mode=None)

_add(app, "up", up.up, up.EXAMPLES)
_add(app, "down", down.down, down.EXAMPLES)
_add(app, "run", run.run, run.EXAMPLES, context_settings={"allow_interspersed_args": False})
_add(app, "gateway", gateway.gateway, gateway.EXAMPLES)
_add(app, "apply", apply.apply, apply.EXAMPLES)
_add(app, "diff", diff.diff, diff.EXAMPLES)
_add(app, "analyze", analyze.analyze, analyze.EXAMPLES)
_add(app, "explain", explain.explain, explain.EXAMPLES)
_add(app, "why", why.why, why.EXAMPLES)
_add(app, "history", history.history, history.EXAMPLES)
_add(app, "undo", undo.undo, undo.EXAMPLES)
_add(app, "get", get.get, get.EXAMPLES)
_add(app, "delete", delete.delete, delete.EXAMPLES)
_add(app, "forward", forward.forward, forward.EXAMPLES)
_add(app, "services", services.services, services.EXAMPLES)
_add(app, "workloads", workloads.workloads, workloads.EXAMPLES)
_add(app, "proxies", proxies.proxies, proxies.EXAMPLES)
_add(_proxy, "config", proxy_config.config, proxy_config.EXAMPLES)
app.add_typer(_proxy, name="proxy")
_add(app, "bypass", bypass.bypass, bypass.EXAMPLES)
_add(app, "hosts", hosts.hosts, hosts.EXAMPLES)
_add(app, "settings", settings.settings, settings.EXAMPLES)
_add(app, "status", status.status, status.EXAMPLES)
_add(app, "check", check.check, check.EXAMPLES)
_add(app, "logs", logs.logs, logs.EXAMPLES)
_add(app, "demo", demo.demo, demo.EXAMPLES)
_add(_token, "create", token.create, token.EXAMPLES)
app.add_typer(_token, name="token")
_add(_rollout, "status", rollout.status, rollout.STATUS_EXAMPLES)
_add(_rollout, "promote", rollout.promote, rollout.PROMOTE_EXAMPLES)
_add(_rollout, "abort", rollout.abort, rollout.ABORT_EXAMPLES)
_add(_rollout, "pause", rollout.pause, rollout.PAUSE_EXAMPLES)
_add(_rollout, "resume", rollout.resume, rollout.RESUME_EXAMPLES)
_add(_rollout, "restart", rollout.restart, rollout.RESTART_EXAMPLES)
app.add_typer(_rollout, name="rollout")
_add(_lane, "status", lane.status, lane.EXAMPLES)
app.add_typer(_lane, name="lane")
_add(app, "backup", backup.backup, backup.EXAMPLES)
_add(app, "restore", restore.restore, restore.EXAMPLES)
_add(app, "controller", controller.controller, controller.EXAMPLES, context_settings=_OTHERS)
_add(app, "agent", agent.agent, agent.EXAMPLES, context_settings=_OTHERS)
_add(app, "ratelimit", ratelimit.ratelimit, ratelimit.EXAMPLES, context_settings=_OTHERS)
_add(app, "version", version.version, version.EXAMPLES)


def main() -> None:
    """The entry point; ends the process with the command's exit code."""
    sys.exit(invoke(sys.argv[1:]))


def invoke(arguments: list[str]) -> int:
    """Runs one command line and returns its exit code; never raises for what a person did wrong."""
    try:
        result = typer.main.get_command(app).main(arguments, prog_name="retia", standalone_mode=False)
    except _USAGE_ERROR as error:
        return _wrong_usage(error)
    except ClosedPipeError as error:
        return error.exit_code
    except CliError as error:
        output.say(f"retia: {error}")
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001  what is not ours is raised again
        return _known_failure(error)
    return result if isinstance(result, int) else 0


def _wrong_usage(error: Any) -> int:
    context = error.ctx
    text = error.format_message().replace("Value error, ", "")
    if type(error).__name__ == "NoArgsIsHelpError":
        output.say(text)
    else:
        where = context.command_path if context else "retia"
        output.say(f"retia: {text} (see '{where} --help')")
    return USAGE


def _known_failure(error: Exception) -> int:
    """Errors of the two clients, told apart here so that nothing heavy is imported without need."""
    from retia.api.client import ClientError
    from retia.api.local import LocalError

    if isinstance(error, ClientError):
        output.show_findings(error.findings)
        output.say(f"retia: {error}")
        return FAILED
    if isinstance(error, LocalError):
        output.say(f"retia: {error}")
        return FAILED
    raise error
