"""What the documents show can be copied: all configuration and all mesh files in them are valid."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from retia.cli.up import meshfile
from retia.config.parse import SourceText, parse

ROOT = Path(__file__).resolve().parents[3]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "samples").rglob("*.md")])
BLOCK = re.compile(r"^( *)```ya?ml\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
HERE_DOCUMENT = re.compile(r"<<'YAML'\n(.*?)^YAML$", re.MULTILINE | re.DOTALL)


def examples() -> Iterator[tuple[str, str]]:
    """All YAML in the documents, with where it stands."""
    for page in PAGES:
        text = page.read_text()
        found = [(m.start(2), textwrap.dedent(m.group(2))) for m in BLOCK.finditer(text)]
        found += [(m.start(1), m.group(1)) for m in HERE_DOCUMENT.finditer(text)]
        for at, yaml in found:
            yield f"{page.relative_to(ROOT)}:{text.count(chr(10), 0, at) + 1}", yaml


CONFIGURATION = [e for e in examples() if "apiVersion:" in e[1]]
MESH_FILES = [e for e in examples() if re.search(r"^services:", e[1], re.MULTILINE)]


def test_there_are_examples() -> None:
    assert len(CONFIGURATION) >= 4
    assert len(MESH_FILES) >= 2


@pytest.mark.parametrize(("place", "text"), CONFIGURATION, ids=[e[0] for e in CONFIGURATION])
def test_configuration_has_no_findings(place: str, text: str) -> None:
    assert [str(f) for f in parse([SourceText(place, text)]).findings] == []


@pytest.mark.parametrize(("place", "text"), MESH_FILES, ids=[e[0] for e in MESH_FILES])
def test_a_mesh_file_is_valid(place: str, text: str) -> None:
    assert meshfile.parse(text, place).services
