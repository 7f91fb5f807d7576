"""``retia agent``."""

from __future__ import annotations

from typing import Annotated

import typer

from retia.cli import processes
from retia.cli.errors import UsageError
from retia.cli.session import Session

EXAMPLES = (
    "retia agent --join TOKEN --controller 192.0.2.10:15012 --advertise-address 192.0.2.11",
    "retia agent",
    "retia agent --envoy /usr/local/bin/envoy",
)


def agent(
    ctx: typer.Context,
    join: Annotated[
        str, typer.Option("--join", metavar="TOKEN", help="A token from 'retia token create'.")
    ] = "",
    controller: Annotated[
        str, typer.Option("--controller", metavar="ADDRESS[:PORT]", help="Where the controller listens.")
    ] = "",
    advertise_address: Annotated[
        str, typer.Option("--advertise-address", help="This host's address for the mesh's other hosts.")
    ] = "",
    envoy: Annotated[str, typer.Option("--envoy", metavar="PATH", help="Your own Envoy binary.")] = "",
) -> None:
    """Run this host's agent in the foreground, until SIGTERM or Ctrl-C.

    'retia up' does this by itself; a second host needs only --join and --controller, once. Further options
    are the agent's own; 'retia agent --help-all' lists them.
    """
    if join and not controller:
        raise UsageError("--join needs --controller: the token does not say where the controller is")
    arguments = ["--help" if a == "--help-all" else a for a in ctx.args]
    for option, value in (
        ("--join", join),
        ("--controller", controller),
        ("--advertise-address", advertise_address),
        ("--envoy", envoy),
    ):
        if value:
            arguments += [option, value]
    session: Session = ctx.obj
    processes.replace(session, processes.AGENT, arguments)
