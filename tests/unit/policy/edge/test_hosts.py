"""Hosts with wildcards, compared."""

from __future__ import annotations

import pytest

from retia.policy.edge.hosts import intersection


@pytest.mark.parametrize(
    ("one", "other", "narrower"),
    [
        ("a.example", "a.example", "a.example"),
        ("a.example", "b.example", ""),
        ("*", "a.example", "a.example"),
        ("*", "*", "*"),
        ("*", "*.example", "*.example"),
        ("*.example", "a.example", "a.example"),
        ("*.example", "a.b.example", "a.b.example"),
        ("*.example", "*.b.example", "*.b.example"),
        ("*.example", "example", ""),
        ("*.example", "xexample", ""),
        ("*.a.example", "*.b.example", ""),
    ],
)
def test_the_narrower_of_two(one: str, other: str, narrower: str) -> None:
    assert intersection(one, other) == narrower
    assert intersection(other, one) == narrower
