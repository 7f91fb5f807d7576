"""The shop for a person: a live status, some traffic to look at, and what to try."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections import Counter, deque
from types import FrameType

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from retia.cli.tour import shop
from retia.cli.tour.client import Visitor
from retia.cli.tour.errors import TourError
from retia.cli.tour.processes import end, retia
from retia.cli.tour.stage import Stage, free_port

PERIOD_S = 0.5
WINDOW = 100
"""Calls over which the shares of versions are shown."""


def show(capture: str = "auto") -> int:
    """Run until Ctrl-C or SIGTERM; 0, or 1 when the shop could not be started or left something behind."""
    import subprocess

    from retia.api.client import ClientError

    console = Console(stderr=True)
    before = signal.signal(signal.SIGTERM, _interrupt)
    stage: Stage | None = None
    failed = False
    try:
        with console.status("Starting the shop: eleven programs, each with its proxy"):
            stage = Stage(shop.mesh_file(), capture)
            stage.start()
            visitor = stage.visitor(account="passer-by")
            browser = free_port()
            door = subprocess.Popen(
                retia("forward", "web", "8080", "--local-port", str(browser)),
                env=stage.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                text=True,
            )
        try:
            _watch(stage, visitor, browser, Console())
        finally:
            end(door, 3)
    except KeyboardInterrupt:
        pass
    except (TourError, ClientError) as error:
        console.print(f"[red]✗[/red] {error}", highlight=False)
        failed = True
    finally:
        if stage is not None:
            with console.status("Ending the shop"):
                stage.close()
            for thing in stage.left:
                console.print(f"[red]left behind:[/red] {thing}", highlight=False)
            failed = failed or bool(stage.left)
        signal.signal(signal.SIGTERM, before)
    if not failed:
        console.print("The shop has ended; nothing is left behind.")
    return 1 if failed else 0


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _watch(stage: Stage, visitor: Visitor, browser: int, console: Console) -> None:
    """Show the state until interrupted; raises :class:`TourError` when the mesh ends by itself."""
    calls: deque[str] = deque(maxlen=WINDOW)
    console.print(hints(str(stage.home), browser, stage.capture()), highlight=False)
    live = sys.stdout.isatty()
    context = Live(console=console, auto_refresh=False, transient=True) if live else contextlib.nullcontext()
    said = ""
    with context as screen:
        while True:
            if not stage.running:
                raise TourError("the mesh has ended by itself")
            for answer in visitor.many("http://reviews:9080/reviews/1", 5, timeout_s=5):
                calls.append(
                    f"reviews {answer.json().get('version', '')}".strip()
                    if answer.status == 200
                    else str(answer)
                )
            if screen is not None:
                screen.update(Group(_table(stage), Text(), Text(traffic(calls))), refresh=True)
            elif (now := _summary(stage)) != said:
                said = now
                console.print(said, highlight=False)
            time.sleep(PERIOD_S)


def hints(home: str, browser: int, capture: str) -> str:
    """What to try, ready to be copied."""
    steps = os.path.relpath(shop.folder() / "config" / "steps")
    return "\n".join(
        [
            f"The shop runs ({'eBPF' if capture == 'ebpf' else 'explicit'} capture).",
            f"  In a browser:        http://127.0.0.1:{browser}/",
            "  In another terminal:",
            f"    export RETIA_HOME={home}",
            "    retia workloads",
            "    retia run -- curl -s http://reviews:9080/reviews/1",
            f"    retia apply -f {steps}/canary.yaml       # watch the shares below move",
            f"    retia apply -f {steps}/one-user.yaml     # become jason in the browser",
            f"    retia apply -f {steps}/delay.yaml        # reviews are cut after half a second",
            "    retia proxies",
            "    retia check",
            "  Ctrl-C ends it and leaves nothing behind.",
            "",
        ]
    )


def traffic(calls: deque[str]) -> str:
    """The shares of the last calls, by who answered."""
    if not calls:
        return ""
    shares = ", ".join(f"{name} {100 * n // len(calls)} %" for name, n in sorted(Counter(calls).items()))
    return f"last {len(calls)} calls to reviews: {shares}"


def _table(stage: Stage) -> Table:
    proxies = {p.workload: p for p in stage.client.list_proxies()}
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for column in ("WORKLOAD", "STATE", "PORT", "ADDRESS", "CAPTURE", "PROXY", "MEMORY"):
        table.add_column(column)
    for w in stage.workloads():
        proxy = proxies.get(w.id)
        ports = ", ".join(f"{p.number}/{p.protocol}" for p in w.ports)
        memory = f"{proxy.allocated_bytes / 1e6:.1f} MB" if proxy and proxy.allocated_bytes else ""
        colour = "green" if w.state == "ready" else "yellow"
        state = f"[{colour}]{w.state}[/{colour}]"
        table.add_row(
            w.id, state, ports, w.published_address, w.capture, proxy.state if proxy else "", memory
        )
    return table


def _summary(stage: Stage) -> str:
    states = Counter(w.state for w in stage.workloads())
    return ", ".join(f"{n} workloads {state}" for state, n in sorted(states.items()))
