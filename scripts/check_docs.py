"""Checks the documents: every relative link and anchor leads somewhere, every page can be reached.

Pages are found from ``README.md`` and ``docs/README.md`` by following links, so a page that nobody links is
an error too. Links to the web are not followed: a check must not depend on the network.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
START = ("README.md", "docs/README.md")
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^()\s]+(?:\([^()]*\))?)\)|!\[[^\]]*\]\(([^()\s]+)\)")
HEADING = re.compile(r"^#{1,6}\s+(.*?)\s*#*$", re.MULTILINE)
FENCE = re.compile(r"^(```|~~~).*?^\1\s*$", re.MULTILINE | re.DOTALL)


def anchor(heading: str) -> str:
    """The anchor that GitHub makes of a heading."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


def anchors(page: Path) -> set[str]:
    found: set[str] = set()
    for heading in HEADING.findall(FENCE.sub("", page.read_text())):
        name, count = anchor(heading), 0
        while (numbered := f"{name}-{count}" if count else name) in found:
            count += 1
        found.add(numbered)
    return found


def links(page: Path) -> list[str]:
    """The relative links of a page, code left out."""
    text = re.sub(r"`[^`\n]*`", "", FENCE.sub("", page.read_text()))
    targets = [first or second for first, second in LINK.findall(text)]
    return [t for t in targets if not re.match(r"[a-z][a-z0-9+.-]*:", t)]


def broken(page: Path, target: str) -> str | None:
    """Why a link leads nowhere; ``None``: it leads somewhere."""
    path, _, fragment = target.partition("#")
    aim = (page.parent / path).resolve() if path else page
    if not aim.exists():
        return f"no such file {path}"
    if not aim.is_relative_to(ROOT):
        return "leads out of the project"
    if fragment and aim.suffix == ".md" and fragment not in anchors(aim):
        return f"no heading with the anchor #{fragment}"
    return None


def reachable(pages: set[Path]) -> set[Path]:
    found: set[Path] = set()
    todo = [ROOT / name for name in START]
    while todo:
        page = todo.pop()
        if page in found or page not in pages:
            continue
        found.add(page)
        for target in links(page):
            aim = (page.parent / target.partition("#")[0]).resolve()
            todo.append(aim / "README.md" if aim.is_dir() else aim)
    return found


def main() -> int:
    pages = set(ROOT.glob("*.md")) | set((ROOT / "docs").rglob("*.md"))
    pages |= set((ROOT / "samples").rglob("*.md"))
    problems = []
    for page in sorted(pages):
        for target in links(page):
            why = broken(page, target)
            if why:
                problems.append(f"{page.relative_to(ROOT)}: link '{target}': {why}")
    for page in sorted(set((ROOT / "docs").rglob("*.md")) - reachable(pages)):
        problems.append(f"{page.relative_to(ROOT)}: no page links to it")
    print("\n".join(problems) or f"{len(pages)} pages, all links lead somewhere")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
