"""YAML as plain data with lines."""

from __future__ import annotations

from typing import Any

import pytest

from retia.config.codes import Code
from retia.config.yaml_text import MAX_DEPTH, MAX_NODES, read


def data_of(text: str) -> Any:
    (document,) = read(text)
    assert not document.problems
    return document.data


def problems_of(text: str) -> list[tuple[Code, str, int]]:
    return [(p.code, p.message, p.line) for document in read(text) for p in document.problems]


@pytest.mark.parametrize(
    ("scalar", "value"),
    [
        ("true", True),
        ("False", False),
        ("yes", "yes"),
        ("on", "on"),
        ("null", None),
        ("~", None),
        ("12", 12),
        ("-7", -7),
        ("010", 10),
        ("0x1F", 31),
        ("0o17", 15),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        (".inf", float("inf")),
        ("2024-01-01", "2024-01-01"),
        ("1:30", "1:30"),
        ('"12"', "12"),
        ("'true'", "true"),
        ("!!str 12", "12"),
        ("! 12", "12"),
        ("|\n  a\n  b\n", "a\nb\n"),
    ],
)
def test_scalars_are_those_of_the_core_schema(scalar: str, value: Any) -> None:
    assert data_of(f"a: {scalar}") == {"a": value}


def test_keys_are_text() -> None:
    assert data_of("8080: x\ntrue: y\n1.5: z") == {"8080": "x", "true": "y", "1.5": "z"}


def test_every_field_knows_its_line() -> None:
    (document,) = read("a:\n- b: 1\n  c:\n    d: 2\n")
    assert document.line_of(("a", 0, "c", "d")) == 4
    assert document.line_of(("a", 0, "missing")) == 2
    assert document.line_of(("other",)) == 1


def test_aliases_and_merges_are_followed() -> None:
    assert data_of("a: &x {b: 1, c: 2}\nd: *x\ne: {<<: *x, c: 3}") == {
        "a": {"b": 1, "c": 2},
        "d": {"b": 1, "c": 2},
        "e": {"c": 3, "b": 1},
    }


def test_empty_documents_are_left_out() -> None:
    assert [document.data for document in read("---\n---\na: 1\n---\n# nothing\n")] == [{"a": 1}]


def test_a_key_given_twice() -> None:
    assert problems_of("a: 1\nb: 2\na: 3\n") == [
        (Code.DUPLICATE_KEY, "is given twice; the first is in line 1", 3)
    ]


def test_documents_before_a_syntax_error_stand() -> None:
    first, second = read("a: 1\n---\nb: [\n---\nc: 1\n")
    assert first.data == {"a": 1}
    assert second.data is None
    assert [p.code for p in second.problems] == [Code.SYNTAX]


def test_foreign_tags() -> None:
    assert problems_of("a: !!python/name:os.system x")[0][0] is Code.SYNTAX
    assert problems_of("a: !secret x") == [(Code.SYNTAX, "has the tag !secret, which is not read here", 1)]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("[" * (MAX_DEPTH + 5), id="depth"),
        pytest.param("a: &a [*a]", id="alias of itself"),
        pytest.param("a: &a {<<: *a}", id="merge of itself"),
        pytest.param(
            "a: &a [x,x,x,x,x,x,x,x,x]\n"
            + "".join(
                f"{b}: &{b} [{','.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefg", "bcdefgh", strict=True)
            ),
            id="aliases that multiply",
        ),
        pytest.param("[" + "x," * (MAX_NODES + 1) + "]", id="fields"),
    ],
)
def test_limits(text: str) -> None:
    assert [code for code, _, _ in problems_of(text)] == [Code.LIMIT]


def test_many_documents_of_aliases_are_bounded_together() -> None:
    bomb = "a: &a [" + "x," * 2000 + "]\nb: [" + "*a," * 90 + "]\n"
    assert (Code.LIMIT, "has over 200000 fields and items, aliases expanded", 1) not in problems_of(bomb)
    codes = [code for code, _, _ in problems_of("---\n".join([bomb] * 50))]
    assert codes == [Code.LIMIT]


@pytest.mark.parametrize(
    "text", ["\x00", "\ud800", "a: *nothing", "%YAML 9.9\n---\na", "a:\n\t- b", "{", "'", "@", "&a"]
)
def test_what_is_no_yaml_is_said(text: str) -> None:
    assert all(code is Code.SYNTAX for code, _, _ in problems_of(text))
