"""``retia logs``."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from retia.cli import output
from retia.cli.errors import CliError, UsageError
from retia.cli.output import Format, Output
from retia.cli.session import Session
from retia.cli.tail import COLOURS, Tail, last_lines, prefixed

EXAMPLES = (
    "retia logs",
    "retia logs reviews-v1-0 -f",
    "retia logs controller --lines 200 -o json",
)

POLL_S = 0.2


def logs(
    ctx: typer.Context,
    workload: Annotated[
        str | None,
        typer.Argument(
            help="A workload, a service, 'controller', 'agent' or 'proxy/WORKLOAD'; absent: all workloads."
        ),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is added.")] = False,
    lines: Annotated[int, typer.Option("--lines", min=0, max=1_000_000, help="Lines of the past.")] = 50,
    output_format: Output = Format.TABLE,
) -> None:
    """Show what programs, controller, agent and proxies have written.

    Programs started by 'retia run' write to their own terminal; here are those of 'retia up'.
    """
    if follow and output_format is Format.YAML:
        raise UsageError("--follow and -o yaml contradict each other; use -o json, one object a line")
    session: Session = ctx.obj
    found = log_files(session, workload)
    if not found:
        raise CliError(_nothing(session, workload))
    width = max(len(name) for name in found)
    tails = {name: Tail(path) for name, path in found.items()}
    past = [(name, line) for name, path in found.items() for line in last_lines(path, lines)]
    if output_format is Format.YAML:
        output.emit([{"source": name, "line": line} for name, line in past], output_format)
        return
    colours = _colours(list(found))
    for name, line in past:
        _print(name, line, width, colours, output_format)
    while follow:
        time.sleep(POLL_S)
        for name, path in log_files(session, workload).items():
            tail = tails.setdefault(name, Tail(path, from_start=True))
            colours.setdefault(name, _next_colour(colours))
            for line in tail.read():
                _print(name, line, width, colours, output_format)


def log_files(session: Session, wanted: str | None) -> dict[str, Path]:
    """Name and file of every log that fits; workloads of the supervisor stand under ``log/workloads``."""
    if wanted in ("controller", "agent", "up"):
        path = session.log / f"{wanted}.log"
        return {wanted: path} if path.exists() else {}
    if wanted is not None and wanted.startswith("proxy/"):
        return _proxy_log(session, wanted.removeprefix("proxy/"))
    folder = session.log / "workloads"
    files = {path.stem: path for path in sorted(folder.glob("*.log"))} if folder.is_dir() else {}
    if wanted is None:
        return files
    name = wanted.rpartition("/")[2]
    exact = {n: p for n, p in files.items() if n == name}
    return exact or {n: p for n, p in files.items() if n.startswith(f"{name}-")}


def _proxy_log(session: Session, workload: str) -> dict[str, Path]:
    from retia.api.local import Proxies, ProxyList

    with session.agent(timeout_s=5.0) as agent:
        proxies = agent.call(Proxies(), ProxyList).proxies
    for proxy in proxies:
        if workload in (proxy.id, proxy.id.partition("/")[2]) and proxy.log_path:
            return {f"proxy/{proxy.id}": Path(proxy.log_path)}
    return {}


def _nothing(session: Session, wanted: str | None) -> str:
    if wanted is None:
        return f"there are no logs in {session.log}; programs started by 'retia up' write there"
    names = ", ".join(log_files(session, None)) or "none"
    return f"there is no log of {wanted!r} in {session.log}; there are: {names}, controller, agent"


def _colours(names: list[str]) -> dict[str, int]:
    colours: dict[str, int] = {}
    for name in names:
        colours[name] = _next_colour(colours)
    return colours


def _next_colour(colours: dict[str, int]) -> int:
    return COLOURS[len(colours) % len(COLOURS)] if sys.stdout.isatty() else 0


def _print(name: str, line: str, width: int, colours: dict[str, int], output_format: Format) -> None:
    if output_format is Format.JSON:
        output.write(json.dumps({"source": name, "line": line}) + "\n")
    else:
        output.write(prefixed(name, line, width, colours[name]) + "\n")
