"""``retia down``."""

from __future__ import annotations

import typer

from retia.cli import output
from retia.cli.output import Format, Output
from retia.cli.session import Session

EXAMPLES = (
    "retia down",
    "retia --home /srv/mesh down",
    "retia down -o json",
)


def down(ctx: typer.Context, output_format: Output = Format.TABLE) -> None:
    """Stop what 'retia up' started: the services in reverse order, then agent and controller.

    It also cleans up after a supervisor that was killed. With nothing running it says so and succeeds.
    """
    from retia.cli.up.stopping import stop

    session: Session = ctx.obj
    stopped = stop(session, output.say if output_format is Format.TABLE else lambda _: None)
    if output_format is not Format.TABLE:
        output.emit({"stopped": stopped}, output_format)
    elif not stopped:
        output.say(f"nothing is running for {session.home}")
