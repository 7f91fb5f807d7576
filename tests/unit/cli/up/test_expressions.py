"""Expressions in commands and environments."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retia.cli.up.expressions import Used, fill_late, fill_variables, find

ENV = {"HOME": "/h", "EMPTY": "", "MONEY": "$5 ${upstream:x:1}"}


def whole(text: str) -> str:
    return fill_late(fill_variables(text, ENV), lambda h, p: f"<{h}:{p}>", lambda p: f"<{p}>")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("plain", "plain"),
        ("${HOME}/x", "/h/x"),
        ("${NONE:-a b}", "a b"),
        ("${EMPTY:-d}", "d"),
        ("${EMPTY}", ""),
        ("$$HOME $${HOME}", "$HOME ${HOME}"),
        ("$HOME $", "$HOME $"),
        ("http://${upstream:ratings.shop:9080}/", "http://<ratings.shop:9080>/"),
        ("--port ${port:80}", "--port <80>"),
        ("${MONEY}", "$5 ${upstream:x:1}"),
    ],
)
def test_filling(text: str, wanted: str) -> None:
    assert whole(text) == wanted


@pytest.mark.parametrize("text", ["${}", "${a b}", "${1}", "${NONE}"])
def test_wrong_variables_are_errors(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no expression|is not set"):
        fill_variables(text, ENV)


@pytest.mark.parametrize("text", ["${upstream:a}", "${upstream:A:1}", "${upstream:a:0}", "${port:x}"])
def test_wrong_late_expressions_are_errors(text: str) -> None:
    with pytest.raises(ValueError, match="is no expression"):
        find([fill_variables(text, ENV)])


def test_find_lists_what_is_used() -> None:
    texts = ["${upstream:b:2}", "${upstream:a:1} ${port:80}", "${upstream:b:2} $${port:81}"]
    assert find(texts) == Used((("a", 1), ("b", 2)), (80,))


@given(st.text())
def test_values_of_variables_are_never_expressions(value: str) -> None:
    text = fill_variables("${X}", {"X": value})
    assert fill_late(text, lambda *_: "!", lambda _: "!") == value
