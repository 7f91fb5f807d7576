"""The grammar of resource names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retia.translate.names import (
    ByServerName,
    Fixed,
    HostName,
    InboundPort,
    Outbound,
    Pinned,
    TcpDial,
    join_host_port,
    parse_cluster,
    parse_port,
    parse_upstream,
    parse_virtual_host,
    split_host_port,
)

REVIEWS = "reviews.default.svc.cluster.local"


@pytest.mark.parametrize(
    ("name", "parsed"),
    [
        (f"outbound|9080|v1|{REVIEWS}", Outbound(9080, "v1", REVIEWS)),
        (f"outbound|9080||{REVIEWS}", Outbound(9080, "", REVIEWS)),
        (f"outbound_.9080_.v1_.{REVIEWS}", ByServerName(9080, "v1", REVIEWS)),
        (f"outbound_.9080_._.{REVIEWS}", ByServerName(9080, "", REVIEWS)),
        ("tcp|240.240.0.7:5432", TcpDial("240.240.0.7", 5432)),
        ("tcp|[fd00::1]:5432", TcpDial("fd00::1", 5432)),
        (f"endpoint|127.64.0.3:9080|80|{REVIEWS}", Pinned("127.64.0.3:9080", 80, REVIEWS)),
        ("inbound|9080||", InboundPort(9080)),
        ("PassthroughCluster", Fixed("PassthroughCluster")),
    ],
)
def test_a_cluster_name_is_parsed_and_written_alike(name: str, parsed: object) -> None:
    assert parse_cluster(name) == parsed
    assert str(parsed) == name


@pytest.mark.parametrize(
    "name",
    ["", "x", "outbound|0||h", "outbound|99999||h", "outbound|80||", "outbound|80|h", "tcp|1.2.3.4",
     "tcp|:80", "inbound|80|x|", "endpoint|1.2.3.4|80|h", "outbound_.x_._.h", "outbound_.80",
     "outbound|080||h"],
)  # fmt: skip
def test_other_names_are_none_of_ours(name: str) -> None:
    assert parse_cluster(name) is None


@given(st.text(max_size=60))
def test_any_text_parses_or_does_not(text: str) -> None:
    parsed = parse_cluster(text)
    assert parsed is None or parse_cluster(str(parsed)) == parsed


def test_the_server_name_of_a_cluster_is_what_a_gateway_reads() -> None:
    assert parse_cluster(Outbound(9080, "v1", REVIEWS).server_name) == ByServerName(9080, "v1", REVIEWS)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("reviews", ("reviews", 0)),
        ("reviews:9080", ("reviews", 9080)),
        ("10.0.0.1:80", ("10.0.0.1", 80)),
        ("[fd00::1]:80", ("fd00::1", 80)),
        ("[fd00::1]", ("fd00::1", 0)),
        ("fd00::1", ("fd00::1", 0)),
        ("reviews:", ("reviews:", 0)),
        ("reviews:http", ("reviews:http", 0)),
    ],
)
def test_a_host_header_is_split(text: str, parts: tuple[str, int]) -> None:
    assert split_host_port(text) == parts


def test_an_ipv6_address_is_bracketed() -> None:
    assert join_host_port("fd00::1", 80) == "[fd00::1]:80"


def test_a_virtual_host_is_split_at_the_last_slash() -> None:
    assert parse_virtual_host("9080/reviews:9080") == HostName("9080", "reviews:9080")
    assert parse_virtual_host("reviews") is None
    assert parse_virtual_host("9080/") is None


def test_ports_are_numbers_in_range() -> None:
    assert [parse_port(t) for t in ("1", "65535", "0", "65536", "", "-1", "01", "٣")] == [1, 65535] + [0] * 6
    assert parse_upstream("upstream-9001") == 9001
    assert parse_upstream("9001") == 0
