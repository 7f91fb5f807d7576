"""Starts one service of the shop in its own language, or in Python where that language is not installed.

``products`` is written for Node.js and ``ratings`` for Java (11 or newer, run from source); which one runs is
printed. The process is replaced, so the service has the process id that was started.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
NATIVE = {
    "products": ("node", ["products.js"]),
    "ratings": ("java", ["-Xmx48m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "Ratings.java"]),
}


def command(service: str) -> list[str]:
    """The command line that runs ``service`` here."""
    runtime, arguments = NATIVE.get(service, ("", []))
    program = shutil.which(runtime) if runtime else None
    if program is None:
        if runtime:
            print(f"{service}: no {runtime} on this machine; the Python version runs instead", flush=True)
        return [sys.executable, str(HERE / f"{service}.py")]
    *options, source = arguments
    return [program, *options, str(HERE / source)]


if __name__ == "__main__":
    names = sorted(p.stem for p in HERE.glob("*.py") if p.stem not in ("plain", "start"))
    if len(sys.argv) != 2 or sys.argv[1] not in names:
        sys.exit(f"usage: start.py SERVICE, one of {', '.join(names)}")
    line = command(sys.argv[1])
    os.execv(line[0], line)
