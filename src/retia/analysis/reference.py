"""``docs/reference/findings.md``, made from the catalogue.

``python -m retia.analysis.reference`` prints it.
"""

from __future__ import annotations

import sys

from retia.analysis.catalogue import CATALOGUE

_HEAD = """# Findings

What Retia says about configuration. A finding has a stable code, a level, a place (file, line, object and
field path) and one sentence. `retia apply` refuses everything if one finding is an error; warnings and notes
are printed and do not change the exit status. A code is never reused for something else.

This page is made from the program (`make docs`).

| code | level | what | effect | what to do |
|---|---|---|---|---|
"""


def page() -> str:
    """The page as Markdown."""
    rows = (f"| `{e.code}` | {e.level} | {e.title} | {e.effect} | {e.remedy} |" for e in CATALOGUE.values())
    return _HEAD + "\n".join(rows) + "\n"


if __name__ == "__main__":
    sys.stdout.write(page())
