"""What ``retia up`` shows: messages, then the programs' output with a live status below it.

On a terminal the status is a small table that stays at the bottom; elsewhere there are only lines. Output of
programs goes to stdout, everything else to stderr.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from retia.cli import output
from retia.cli.tail import COLOURS, Tail, prefixed
from retia.cli.up.platform import Platform
from retia.cli.up.supervisor import SlotState, Supervisor

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

_STYLES = {"ready": "green", "done": "green", "failed": "red", "unhealthy": "red"}


class View:
    """The foreground's show; see :class:`retia.cli.up.main.Show`."""

    def __init__(self) -> None:
        self._tails: dict[str, Tail] = {}
        self._colours: dict[str, int] = {}
        self._width = 0
        self._live: Live | None = None
        self._shown: list[SlotState] = []

    def say(self, text: str) -> None:
        if self._live is not None:
            from rich.text import Text

            self._live.console.print(Text(text, style="dim"), soft_wrap=True)
        else:
            output.say(text)

    def up(self, supervisor: Supervisor, platform: Platform, seconds: float) -> None:
        info = platform.info
        capture = "" if info is None else f"; {_capture_name(info.capture)} capture: {info.reason}"
        self.say(f"the mesh is up after {seconds:.1f} s{capture}")
        for item in supervisor.wanted.publish:
            self.say(f"{item.host} is at {item.address}:{item.host_port}")
        self.say("Ctrl-C stops it; 'retia services', 'retia proxies', 'retia check' look into it")
        if sys.stdout.isatty() and sys.stderr.isatty():
            from rich.live import Live

            self._live = Live(auto_refresh=False, transient=True)
            self._live.start()
        for running in supervisor.instances:
            self._follow(running.name, running.log)

    def tick(self, supervisor: Supervisor) -> None:
        for running in supervisor.instances:
            if running.name not in self._tails or self._tails[running.name].path != running.log:
                self._follow(running.name, running.log)
        for name, tail in list(self._tails.items()):
            for line in tail.read():
                self._line(name, line)
        states = supervisor.status()
        if self._live is not None and states != self._shown:
            self._shown = states
            self._live.update(_table(states), refresh=True)

    def stopping(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _follow(self, name: str, log: object) -> None:
        from pathlib import Path

        self._tails[name] = Tail(Path(str(log)), from_start=True)
        self._colours.setdefault(name, COLOURS[len(self._colours) % len(COLOURS)])
        self._width = max(self._width, len(name))

    def _line(self, name: str, line: str) -> None:
        text = prefixed(name, line, self._width, self._colours[name] if sys.stdout.isatty() else 0)
        if self._live is not None:
            from rich.text import Text

            self._live.console.print(Text.from_ansi(text), soft_wrap=True)
        else:
            output.write(text + "\n")


def _table(states: list[SlotState]) -> Table:
    """One row for each version of a service."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("SERVICE", "VERSION", "READY", "STATE", "RESTARTS"):
        table.add_column(column)
    groups: dict[tuple[str, str, str], list[SlotState]] = {}
    for state in states:
        key = (state.slot.namespace, state.slot.service, state.slot.version)
        groups.setdefault(key, []).append(state)
    for (namespace, service, version), members in groups.items():
        ready = sum(m.state in ("ready", "done") for m in members)
        words = sorted({m.state for m in members})
        style = next(
            (_STYLES[w] for w in ("failed", "unhealthy") if w in words), _STYLES.get(words[0], "yellow")
        )
        name = service if namespace == "default" else f"{service}.{namespace}"
        restarts = sum(m.restarts for m in members)
        table.add_row(
            name,
            version or "-",
            f"{ready}/{len(members)}",
            f"[{style}]{', '.join(words)}[/]",
            str(restarts),
        )
    return table


def _capture_name(capture: str) -> str:
    return "eBPF" if capture == "ebpf" else capture
