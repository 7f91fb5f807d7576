"""Checks what no linter knows: nothing in the repository depends on one machine or one registry's address.

* no path into somebody's home or work folder,
* no package registry's host name (registries are chosen by the machine's own settings),
* no unfinished business left in the text (a doubt becomes an issue),
* no file above 1 MiB.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIMIT_BYTES = 1 << 20
SELF = Path(__file__).resolve()
RULES = (
    (re.compile(r"/(?:home|root|work|Users)/\w+"), "a path of one machine"),
    (
        re.compile(
            r"\b(?:pypi\.org|pythonhosted\.org|npmjs\.(?:org|com)|crates\.io|proxy\.golang\.org"
            r"|repo1?\.maven|deb\.debian\.org|archive\.ubuntu\.com)"
        ),
        "a package registry's host",
    ),
    (re.compile(r"\b(?:TODO|FIXME|XXX)\b"), "unfinished business; make it an issue"),
)


def files() -> list[Path]:
    """What git knows or would take; in a tree without git, everything but hidden folders."""
    try:
        listing = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
            cwd=ROOT,
            check=True,
            capture_output=True,
        ).stdout.decode()
        found = [ROOT / name for name in listing.split("\0") if name]
    except (OSError, subprocess.CalledProcessError):
        found = [p for p in ROOT.rglob("*") if not any(x.startswith(".") for x in p.relative_to(ROOT).parts)]
    return sorted({p for p in found if p.is_file() and not p.is_symlink()})


def problems(path: Path) -> list[str]:
    name = path.relative_to(ROOT)
    data = path.read_bytes()
    if len(data) > LIMIT_BYTES:
        return [f"{name}: {len(data)} bytes; at most {LIMIT_BYTES}"]
    if b"\0" in data or path == SELF:
        return []
    found = []
    for number, line in enumerate(data.decode(errors="replace").splitlines(), 1):
        for rule, meaning in RULES:
            hit = rule.search(line)
            if hit:
                found.append(f"{name}:{number}: '{hit.group()}': {meaning}")
    return found


def main() -> int:
    listing = files()
    found = [text for path in listing for text in problems(path)]
    print("\n".join(found) or f"{len(listing)} files, nothing tied to one machine")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
