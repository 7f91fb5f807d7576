"""Golden files: one world in, all that its proxies are told out, as text.

``make golden`` (``RETIA_UPDATE_GOLDEN=1 pytest tests/golden``) rewrites them and removes those of cases that
are gone; the difference is to be read as code. They show *that* output changed; tests/simulation asks whether
it is still right.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from google.protobuf import (  # noqa: F401 - messages inside Any are printed by type
    descriptor_pool,
    text_format,
    wrappers_pb2,
)

from retia.model.resource import Built, Name
from tests.golden.cases import CASES, Case
from tests.support.validating import decode

FOLDER = Path(__file__).parent / "files"
UPDATE = os.environ.get("RETIA_UPDATE_GOLDEN") == "1"
ADVICE = "run `make golden` if the change is meant, and review the difference"


def render(case: Case) -> str:
    """All resources of the case's proxy, sorted, with what they refer to and where they come from."""
    return "\n".join(render_one(name, built) for name, built in case.results())


def render_one(name: Name, built: Built) -> str:
    lines = [f"# {name}"]
    if built.name != name.name:
        lines.append(f"# canonical: {built.name}")
    lines += [f"# alias: {alias}" for alias in built.aliases if alias not in (name.name, built.name)]
    lines += [f"# refers to: {ref}" for ref in built.refs]
    lines += [f"# from: {p.ref} {p.field}".rstrip() for p in built.provenance]
    lines += [f"# finding: {finding}" for finding in built.findings]
    if built.security:
        lines.append("# security")
    if built.message is None:
        return "\n".join([*lines, "# absent", ""])
    text = text_format.MessageToString(
        decode(name.type, built), descriptor_pool=descriptor_pool.Default(), print_unknown_fields=False
    )
    return "\n".join(lines) + "\n" + _without_common(text)


def _without_common(text: str) -> str:
    """Without what every connection manager has alike, a long table that its own tests look at."""
    kept: list[str] = []
    end = ""
    for line in text.splitlines(keepends=True):
        word = line.strip()
        if not end and word in ("local_reply_config {", "proxy_status_config {"):
            end = line.replace(word, "}")
        elif end:
            end = "" if line == end else end
        else:
            kept.append(line)
    return "".join(kept)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_golden(case: Case) -> None:
    path = FOLDER / f"{case.name}.txt"
    text = render(case)
    assert text.strip()
    if UPDATE:
        FOLDER.mkdir(exist_ok=True)
        path.write_text(text)
    assert path.exists(), f"{path.name} is missing; {ADVICE}"
    assert path.read_text() == text, f"{path.name} differs; {ADVICE}"


def test_there_are_no_stale_files() -> None:
    known = {f"{case.name}.txt" for case in CASES}
    stale = [path for path in sorted(FOLDER.iterdir()) if path.name not in known]
    if UPDATE:
        for path in stale:
            path.unlink()
        return
    assert not stale, f"{', '.join(p.name for p in stale)} belong to no case; {ADVICE}"
