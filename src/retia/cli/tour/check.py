"""The tour with no person: every step in order, then the end, which must leave nothing."""

from __future__ import annotations

import sys
import time

from retia.cli.tour import shop
from retia.cli.tour.errors import Disproved, TourError
from retia.cli.tour.stage import Stage, free_port
from retia.cli.tour.steps import STEPS, Tour


def walk(capture: str = "auto") -> int:
    """Walk all steps; 0: all held (or cannot be given by this capture), 1: something did not."""
    from retia.api.client import ClientError

    say = Report()
    failed = 0
    began = time.monotonic()
    stage: Stage | None = None
    try:
        say.message("starting the shop: eleven programs, each with its proxy")
        stage = Stage(shop.mesh_file(), capture)
        with stage:
            port = free_port()
            visitor = stage.visitor(upstreams=(f"inventory:7070={port}",))
            tour = Tour(stage, visitor, stage.capture(), port)
            say.message(f"ready after {time.monotonic() - began:.1f} s; capture: {tour.capture}")
            for step in STEPS:
                if step.needs_ebpf and tour.capture != "ebpf":
                    say.line("-", step.title, f"n/a (explicit): {step.needs_ebpf}")
                    continue
                started = time.monotonic()
                try:
                    say.line("✓", step.title, step.act(tour), time.monotonic() - started)
                except (Disproved, TourError, ClientError) as error:
                    failed += 1
                    say.line("✗", step.title, str(error), time.monotonic() - started)
    except (TourError, ClientError) as error:
        failed += 1
        say.line("✗", "the mesh runs", str(error))
    except KeyboardInterrupt:
        say.message("interrupted")
        return 130
    left = stage.left if stage is not None else []
    failed += bool(left)
    say.line("✗" if left else "✓", "nothing is left behind", "; ".join(left) or LEFT_NOTHING)
    say.message(f"{failed} step(s) failed" if failed else f"all held, in {time.monotonic() - began:.0f} s")
    return 1 if failed else 0


LEFT_NOTHING = "no process, cgroup, pinned object, mount, socket or file"


class Report:
    """Results on stdout, messages on stderr."""

    def __init__(self) -> None:
        self._colour = sys.stdout.isatty()
        self._number = 0

    def message(self, text: str) -> None:
        sys.stderr.write(f"retia demo: {text}\n")
        sys.stderr.flush()

    def line(self, mark: str, title: str, text: str, seconds: float | None = None) -> None:
        self._number += 1
        shown = mark
        if self._colour:
            shown = f"\x1b[{ {'✓': 32, '✗': 31}.get(mark, 33) }m{mark}\x1b[0m"
        took = f" ({seconds:.1f} s)" if seconds is not None else ""
        sys.stdout.write(f"{shown} {self._number:2} {title}{took}\n     {text}\n")
        sys.stdout.flush()
