"""Envoy's matching rules, after its documentation."""

from __future__ import annotations

from typing import Any

import pytest
from envoy.config.route.v3 import route_components_pb2

from retia.explain.match import (
    CannotSayError,
    best_domain,
    full_match,
    header_matches,
    parameter_matches,
    regex_replace,
    why_not,
)


def header(**fields: Any) -> Any:
    matcher = route_components_pb2.HeaderMatcher(name="x")
    for name, value in fields.items():
        if name == "exact":
            matcher.string_match.exact = value
        else:
            setattr(matcher, name, value)
    return matcher


@pytest.mark.parametrize(
    ("domains", "host", "best"),
    [
        (["*", "a.b.c", "*.c"], "a.b.c", "a.b.c"),
        (["*", "*.c", "*.b.c"], "a.b.c", "*.b.c"),
        (["*", "*.c", "a.*"], "a.b.c", "*.c"),
        (["*", "a.*", "a.b.*"], "a.b.c", "a.b.*"),
        (["*", "-x.c"], "y.d", "*"),
        (["*.b.c"], "b.c", ""),
        (["A.b.C"], "a.B.c", "A.b.C"),
        (["*-x.c"], "a-x.c", "*-x.c"),
    ],
)
def test_the_most_specific_domain_counts(domains: list[str], host: str, best: str) -> None:
    place, _ = best_domain(domains, host)

    assert (domains[place] if place >= 0 else "") == best


@pytest.mark.parametrize(
    ("matcher", "present", "absent"),
    [
        (header(exact="1"), True, False),
        (header(exact="1", invert_match=True), False, False),
        (header(exact="1", invert_match=True, treat_missing_header_as_empty=True), False, True),
        (header(present_match=True), True, False),
        (header(present_match=True, invert_match=True), False, True),
        (header(present_match=False), False, True),
        (header(), True, False),
    ],
)
def test_a_missing_header_matches_nothing_but_absence(matcher: Any, present: bool, absent: bool) -> None:
    assert header_matches(matcher, {"x": "1"}) is present
    assert header_matches(matcher, {}) is absent


def test_of_a_query_parameter_the_first_value_counts() -> None:
    matcher = route_components_pb2.QueryParameterMatcher(name="a")
    matcher.string_match.exact = "1"

    assert parameter_matches(matcher, "a=1&a=2")
    assert not parameter_matches(matcher, "a=2&a=1")
    assert not parameter_matches(matcher, "b=1")


def test_a_pattern_must_match_as_a_whole() -> None:
    assert full_match("/a/[0-9]+", "/a/12")
    assert not full_match("/a/[0-9]+", "/a/12/b")
    assert full_match("[[:alpha:]]+", "abc")


@pytest.mark.parametrize("pattern", ["(a+)+b", "((a|b)*c)*", r"\pL+", "(?P<n>a)(?P=n)(", "(a*)*"])
def test_what_only_re2_can_do_is_not_guessed(pattern: str) -> None:
    with pytest.raises(CannotSayError):
        full_match(pattern, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaac")


def test_a_long_text_is_left_to_envoy() -> None:
    with pytest.raises(CannotSayError):
        full_match("a*", "a" * 100_000)


def test_every_match_is_replaced() -> None:
    assert regex_replace("/v([0-9])", r"/version/\1", "/v1/v2") == "/version/1/version/2"


def route(**fields: Any) -> Any:
    match = route_components_pb2.RouteMatch()
    for name, value in fields.items():
        setattr(match, name, value)
    return match


def request(path: str, method: str = "GET") -> dict[str, str]:
    return {":path": path, ":method": method, ":authority": "h"}


@pytest.mark.parametrize(
    ("match", "path", "takes"),
    [
        (route(prefix="/a"), "/ab", True),
        (route(path_separated_prefix="/a"), "/ab", False),
        (route(path_separated_prefix="/a"), "/a/b?x=1", True),
        (route(path_separated_prefix="/a"), "/a", True),
        (route(path="/a"), "/a?x=1", True),
        (route(path="/a"), "/a/", False),
    ],
)
def test_paths_without_their_query(match: Any, path: str, takes: bool) -> None:
    assert (why_not(match, request(path), tls=False) == "") is takes


def test_connect_takes_the_routes_for_it_only() -> None:
    connect = route_components_pb2.RouteMatch()
    connect.connect_matcher.SetInParent()

    assert not why_not(connect, request("", "CONNECT"), tls=False)
    assert why_not(connect, request("/"), tls=False) == "it is for CONNECT only"
    assert why_not(route(prefix="/"), request("", "CONNECT"), tls=False)


def test_what_is_known_at_run_time_only_is_not_guessed() -> None:
    match = route(prefix="/")
    match.dynamic_metadata.add()

    with pytest.raises(CannotSayError):
        why_not(match, request("/"), tls=False)
