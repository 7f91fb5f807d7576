"""``retia token create``."""

from __future__ import annotations

from typing import Annotated

import typer

from retia.cli import output
from retia.cli.errors import UsageError
from retia.cli.output import Format, Output
from retia.cli.session import Session

EXAMPLES = (
    "retia token create",
    "retia token create --ttl 10m --host db-1",
    "retia token create -o json",
)

MAX_TTL_S = 7 * 24 * 3600


def create(
    ctx: typer.Context,
    ttl: Annotated[
        str, typer.Option("--ttl", help="How long it may be used: 10m, 1h, 2d; at most 7d.")
    ] = "1h",
    host: Annotated[str, typer.Option("--host", help="The only host that may use it; absent: any.")] = "",
    output_format: Output = Format.TABLE,
) -> None:
    """Make a one-use token with which another host's agent joins this mesh.

    The token also pins the mesh's authority, so the agent cannot be fooled into another mesh. Treat it as a
    password until it is used or has lapsed.
    """
    from retia.api.schema import TokenRequest

    request = TokenRequest(ttl_s=parse_ttl(ttl), host=host)
    session: Session = ctx.obj
    with session.client() as client:
        token = client.create_token(request)
    if output_format is not Format.TABLE:
        output.emit(token, output_format)
        return
    output.write(f"{token.token}\n")
    if not token.controller:
        output.say(
            "this controller is reached from its own host only; to take in others, start it with "
            "'retia up --advertise-address ADDRESS'"
        )
    where = token.controller or "ADDRESS"
    output.say(
        f"on the other host: retia agent --join TOKEN --controller {where} --advertise-address ITS-ADDRESS"
    )


def parse_ttl(text: str) -> int:
    """Seconds of ``30s``, ``10m``, ``1h``, ``2d``."""
    units = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
    number, unit = text[:-1], text[-1:]
    if not number.isdigit() or unit not in units:
        raise UsageError(f"--ttl {text!r} is no duration; write for example 30s, 10m, 1h or 2d")
    seconds = int(number) * units[unit]
    if not 1 <= seconds <= MAX_TTL_S:
        raise UsageError(f"--ttl {text} is out of range; it must be 1s to 7d")
    return seconds
