"""Runs the benchmarks: ``python -m tests.bench [--list] [--quick] [--row NAME...]``.

Results go to ``bench-results/results.json``: rows that were not measured this time keep what they had there.
The table in ``docs/reference/benchmarks.md`` is made of that file; ``--quick`` writes neither. Nothing fails
because a number is too high: that is for people to judge. A row that can't be measured is reported as such,
and the exit status is 1.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import traceback
from pathlib import Path

from tests.bench import deciding, micro, own_pairs, scale, starting, translation
from tests.bench.report import Results, render, say
from tests.bench.rows import Figure, Group, Run

GROUPS: tuple[Group, ...] = (
    micro.GROUP,
    translation.GROUP,
    deciding.GROUP,
    starting.GROUP,
    scale.GROUP,
    own_pairs.GROUP,
)
ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "bench-results" / "results.json"
PAGE = ROOT / "docs" / "reference" / "benchmarks.md"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--row", nargs="+", action="extend", metavar="NAME", help="only these rows")
    parser.add_argument("--list", action="store_true", help="the rows and how each is measured")
    parser.add_argument("--quick", action="store_true", help="see that it works; writes nothing")
    given = parser.parse_args()
    known = {name: how for group in GROUPS for name, how in group.rows.items()}
    if given.list:
        for name, how in known.items():
            print(f"{name:18} {how}")
        return 0
    wanted = frozenset(given.row or known)
    if unknown := sorted(wanted - known.keys()):
        parser.error(f"no row {', '.join(unknown)}; see --list")
    results = Results.read(RESULTS)
    complete = True
    for group in GROUPS:
        chosen = wanted & group.rows.keys()
        if not chosen:
            continue
        figures = _measure(group, chosen, given.quick)
        complete &= all(f.value is not None for f in figures)
        for figure in figures:
            print(say(figure), flush=True)
        if not given.quick:
            results.replace(chosen, figures)
            results.write(RESULTS)
            render(results, known, PAGE)
    return 0 if complete else 1


def _measure(group: Group, chosen: frozenset[str], quick: bool) -> list[Figure]:
    begin = time.monotonic()
    print(
        f"measuring {', '.join(name for name in group.rows if name in chosen)}", file=sys.stderr, flush=True
    )
    with tempfile.TemporaryDirectory(prefix="retia-bench-") as folder:
        try:
            return group.measure(Run(Path(folder), quick), chosen)
        except Exception as error:  # noqa: BLE001 - the other rows are still worth measuring
            traceback.print_exc()
            return [Figure(row, "all", None, "", note=f"failed: {error}") for row in sorted(chosen)]
        finally:
            print(f"  {time.monotonic() - begin:.0f} s", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
