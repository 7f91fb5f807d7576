"""Durations: Go's grammar in, seconds out."""

from __future__ import annotations

import pytest

from retia.config.duration import Duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("0s", 0),
        ("100ms", 0.1),
        ("1.5s", 1.5),
        (".5s", 0.5),
        ("1.s", 1),
        ("1h30m", 5400),
        ("1m0.25s", 60.25),
        ("+5s", 5),
        ("-1s", -1),
        ("10us", 1e-5),
        ("10µs", 1e-5),
        ("7ns", 7e-9),
    ],
)
def test_reads_what_go_reads(text: str, seconds: float) -> None:
    assert Duration.parse(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "5", "s", "-", "5 s", "1d", "1s-", "1s 2s", ".s", "1e3s", "١s", "--1s"])
def test_refuses_what_go_refuses(text: str) -> None:
    with pytest.raises(ValueError, match="must be a duration with a unit"):
        Duration.parse(text)


def test_refuses_what_no_int64_of_nanoseconds_holds() -> None:
    with pytest.raises(ValueError, match="shorter than 292 years"):
        Duration.parse("99999999h")


@pytest.mark.parametrize("text", ["0s", "1500ms", "2h", "90m", "1us", "7ns", "-3s"])
def test_prints_the_shortest_whole_form(text: str) -> None:
    assert str(Duration.parse(text)) == text


def test_parses_what_it_prints() -> None:
    assert Duration.parse(str(Duration(0.1))) == Duration(0.1)
