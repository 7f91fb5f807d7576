"""Hosts, wildcards and labels."""

from __future__ import annotations

import pytest

from retia.config import names


@pytest.mark.parametrize("host", ["a", "reviews", "a.b.c", "a.b.", "x-1.Example.COM", "a" * 63])
def test_hosts(host: str) -> None:
    assert names.host_rule(host, wildcard=False) is None


@pytest.mark.parametrize(
    "host", ["", "a_b", "-a", "a-", "a..b", "a" * 64, "1.2.3.4", "a b", "*.a", "é.com", "a." * 200]
)
def test_no_hosts(host: str) -> None:
    assert names.host_rule(host, wildcard=False) is not None


@pytest.mark.parametrize(
    ("host", "right"), [("*", True), ("*.a.b", True), ("*-x.a", True), ("a.*", False), ("**.a", False)]
)
def test_wildcards_stand_in_the_first_label(host: str, right: bool) -> None:
    assert (names.host_rule(host, wildcard=True) is None) is right


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("a.b", "a.b", True),
        ("a.b", "c.b", False),
        ("*.b", "a.b", True),
        ("*.b", "b", False),
        ("*.b", "*.c.b", True),
        ("*.b.c", "*.d.c", False),
        ("*", "x", True),
    ],
)
def test_overlap_of_hosts(one: str, other: str, same: bool) -> None:
    assert names.hosts_overlap(one, other) is same
    assert names.hosts_overlap(other, one) is same


def test_a_wildcard_covers_what_is_narrower() -> None:
    assert names.host_covers("*.b", "*.a.b")
    assert not names.host_covers("*.a.b", "*.b")


@pytest.mark.parametrize("text", ["10.0.0.1", "10.0.0.0/8", "10.1.2.3/8", "::1", "fd00::/8"])
def test_networks(text: str) -> None:
    assert names.is_network(text)


@pytest.mark.parametrize("text", ["", "10.0.0", "10.0.0.0/33", "10.0.0.0/255.0.0.0", "fe80::1%eth0", "a"])
def test_no_networks(text: str) -> None:
    assert not names.is_network(text)


@pytest.mark.parametrize(
    ("key", "value", "right"),
    [
        ("app", "x", True),
        ("app.kubernetes.io/name", "", True),
        ("a/b/c", "x", False),
        ("", "x", False),
        ("/a", "x", False),
        ("a", "x y", False),
        ("a", "-x", False),
        ("a" * 64, "x", False),
        ("a", "x" * 64, False),
    ],
)
def test_labels(key: str, value: str, right: bool) -> None:
    assert (names.label_rule(key, value) is None) is right
