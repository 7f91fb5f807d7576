"""``retia controller``."""

from __future__ import annotations

import typer

from retia.cli import processes
from retia.cli.session import Session

EXAMPLES = (
    "retia controller",
    "retia controller --index 1",
    "RETIA_HOME=/srv/mesh retia controller",
)


def controller(ctx: typer.Context) -> None:
    """Run a controller in the foreground, until SIGTERM or Ctrl-C.

    'retia up' does this by itself. Further options are the controller's own; 'retia controller --help-all'
    lists them.
    """
    session: Session = ctx.obj
    arguments = ["--help" if a == "--help-all" else a for a in ctx.args]
    processes.replace(session, processes.CONTROLLER, arguments)
