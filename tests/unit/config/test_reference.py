"""The reference page is the one that the program would write."""

from __future__ import annotations

from pathlib import Path

from retia.config import reference

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "configuration.md"


def test_the_page_is_fresh() -> None:
    assert PAGE.read_text() == reference.page(), (
        "run: python -m retia.config.reference > docs/reference/configuration.md"
    )


def test_every_field_says_its_type_in_words() -> None:
    for kind in reference.kinds.KINDS:
        for field in reference.fields_of(kind):
            assert field.type, f"{kind} {field.path}"
            assert field.type[0].islower() or field.type[0] in '`"IDRU%', f"{kind} {field.path}: {field.type}"
