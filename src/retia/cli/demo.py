"""``retia demo``: the sample shop, and a tour through it."""

from __future__ import annotations

from typing import Annotated

import typer

from retia.cli.run import Capture

EXAMPLES = (
    "retia demo",
    "retia demo --check",
    "retia demo --check --capture explicit",
)


def demo(
    check: Annotated[
        bool, typer.Option("--check", help="Walk the tour with no person; exit status 0 or 1.")
    ] = False,
    capture: Annotated[Capture, typer.Option("--capture", help="How traffic is taken.")] = Capture.AUTO,
) -> None:
    """Start the sample shop in a mesh of its own, with a live status and things to try.

    Ctrl-C ends it and leaves nothing behind. With --check every step of the tour is asserted by what it
    observes; steps that explicit capture cannot give are shown as 'n/a (explicit)'.
    """
    from retia.cli import tour

    raise typer.Exit(tour.run(check=check, capture=capture.value))
