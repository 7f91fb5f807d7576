"""Every code is in the catalogue, once, and the page lists them."""

from __future__ import annotations

import re
from pathlib import Path

from retia.analysis import reference
from retia.analysis.catalogue import CATALOGUE
from retia.config.codes import Code
from retia.config.replies import REPLIES

ROOT = Path(__file__).parents[3]


def test_every_code_has_an_entry() -> None:
    assert set(CATALOGUE) == {code.value for code in Code}


def test_codes_have_their_grammar() -> None:
    assert all(re.fullmatch(r"RT\d{4}", code) for code in CATALOGUE)


def test_a_code_means_one_thing() -> None:
    assert not set(CATALOGUE) & set(REPLIES)
    assert all(re.fullmatch(r"RT5\d{3}", code) for code in REPLIES)


def test_entries_are_sentences() -> None:
    for entry in CATALOGUE.values():
        assert entry.effect.endswith(".")
        assert entry.remedy.endswith(".")
        assert not entry.title.endswith(".")


def test_codes_written_in_the_sources_are_known() -> None:
    written = {
        code
        for path in (ROOT / "src" / "retia").rglob("*.py")
        for code in re.findall(r'"(RT\d{4})"', path.read_text())
    }
    assert written <= set(CATALOGUE) | set(REPLIES)


def test_the_page_is_fresh() -> None:
    page = ROOT / "docs" / "reference" / "findings.md"
    assert page.read_text() == reference.page(), (
        "run: python -m retia.analysis.reference > docs/reference/findings.md"
    )


def test_the_page_of_replies_is_fresh() -> None:
    page = ROOT / "docs" / "reference" / "replies.md"
    assert page.read_text() == reference.replies_page(), (
        "run: python -m retia.analysis.reference replies > docs/reference/replies.md"
    )
