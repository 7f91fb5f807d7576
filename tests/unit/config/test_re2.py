"""The syntax of RE2, without RE2."""

from __future__ import annotations

import pytest

from retia.config.re2 import PatternError, check


@pytest.mark.parametrize(
    "pattern",
    [
        ".*",
        "^/api/v[0-9]+/(users|items)$",
        "(?i)jason",
        "a(?i:b)c(?-s)d",
        r"\d+\.\d*\w\W\s\S\D\b\B\A\z",
        r"\pL\p{Greek}\P{^Lu}\PN",
        "[[:alpha:]_[:^digit:]]",
        r"[]a][^]a][a\-z][\d-z][a-]",
        r"\x41\x{FF}\101\012\377\0",
        r"\Q.*(\E|x",
        "a{2}b{2,}c{2,3}d{,3}e{x}",
        "a*?b+?c??d{1,2}?",
        "(?P<name>x)(?<other>y)",
        "()|",
        r"\/\_\-",
        "^*",
    ],
)
def test_accepts_what_re2_accepts(pattern: str) -> None:
    check(pattern)


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("", "empty"),
        ("x" * 1025, "1025 characters"),
        ("(?=x)", "look-ahead"),
        ("(?<!x)y", "look-ahead and look-behind"),
        ("(?>x)", "opens no group"),
        ("(?P=name)", "opens no group"),
        (r"(a)\1", "back-reference"),
        (r"\q", "no escape"),
        (r"\Z", "no escape"),
        ("a\\", "at the end"),
        ("a**", "repeats a repetition"),
        ("a++", "repeats a repetition"),
        ("*a", "nothing for"),
        ("(|*a)", "nothing for"),
        ("a{3,2}", "ends before it starts"),
        ("a{1001}", "more than 1000"),
        ("((a{100}){100}){100}", "more than 1000"),
        ("(a", "not closed"),
        ("a)", "not opened"),
        ("[a", "not closed"),
        ("[z-a]", "ends before it starts"),
        (r"[\b]", "no escape"),
        (r"\xZZ", "two hexadecimal"),
        (r"\x{1F600}", "compare bytes"),
        (r"\400", "compare bytes"),
        ("([a-c]x[d-f]yz){1000}", "would compile to"),
        ("((a|b|cd){30}e){33}" * 40, "at most 32768"),
        (r"\p", "needs a class"),
        ("(?P<a>x)(?P<a>y)", "used twice"),
    ],
)
def test_refuses_what_re2_refuses(pattern: str, why: str) -> None:
    with pytest.raises(PatternError, match=why):
        check(pattern)


def test_lets_large_patterns_through_that_proxies_take() -> None:
    check("[a-z]{1000}")
    check("(abcdefghij){1000}")


def test_counts_the_groups_that_capture() -> None:
    assert check("(a)(?:b)(?P<c>c)((d))(?i)") == 4
