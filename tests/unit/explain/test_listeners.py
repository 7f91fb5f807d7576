"""Which filter chain takes a connection."""

from __future__ import annotations

from typing import Any

import pytest
from envoy.config.listener.v3 import listener_pb2
from envoy.extensions.filters.listener.http_inspector.v3 import http_inspector_pb2
from envoy.extensions.filters.listener.tls_inspector.v3 import tls_inspector_pb2

from retia.explain import Connection, http_call, tcp_call
from retia.explain.listeners import choose_chain, inspected
from retia.translate import pb


def listener(*names: str, default: bool = False) -> Any:
    made = listener_pb2.Listener(name="l")
    for name in names:
        made.filter_chains.add().name = name
    if default:
        made.default_filter_chain.name = "default"
    return made


def chosen(made: Any, **fields: Any) -> str:
    connection = Connection("l", "10.0.0.1", 443, **fields)
    chain, _ = choose_chain(made, connection)
    return chain.name if chain is not None else ""


def test_the_most_specific_server_name_counts() -> None:
    made = listener("exact", "near", "far", "none")
    made.filter_chains[0].filter_chain_match.server_names.append("a.b.c")
    made.filter_chains[1].filter_chain_match.server_names.append("*.b.c")
    made.filter_chains[2].filter_chain_match.server_names.append("*.c")

    assert chosen(made, tls=True, server_name="a.b.c") == "exact"
    assert chosen(made, tls=True, server_name="x.b.c") == "near"
    assert chosen(made, tls=True, server_name="x.y.c") == "far"
    assert chosen(made, tls=True, server_name="d") == "none"


def test_there_is_no_way_back_from_a_criterion_that_matched() -> None:
    made = listener("port", "any", default=True)
    made.filter_chains[0].filter_chain_match.destination_port.value = 443
    made.filter_chains[0].filter_chain_match.transport_protocol = "tls"

    assert chosen(made, tls=True) == "port"
    assert chosen(made) == "default"


def test_the_narrowest_network_counts() -> None:
    made = listener("wide", "narrow")
    for chain, length in zip(made.filter_chains, (8, 24), strict=True):
        network = chain.filter_chain_match.prefix_ranges.add()
        network.address_prefix, network.prefix_len.value = "10.0.0.0", length

    assert chosen(made) == "narrow"


def test_nothing_fits_and_the_connection_is_closed() -> None:
    made = listener("tls")
    made.filter_chains[0].filter_chain_match.transport_protocol = "tls"

    chain, why = choose_chain(made, Connection("l", "10.0.0.1", 80))

    assert chain is None
    assert "no filter chain" in why


@pytest.mark.parametrize("inspector", [True, False])
def test_what_no_inspector_looks_at_is_not_known(inspector: bool) -> None:
    made = listener("x")
    if inspector:
        for config in (tls_inspector_pb2.TlsInspector(), http_inspector_pb2.HttpInspector()):
            pb.pack(made.listener_filters.add().typed_config, config)
    tls = tcp_call("10.0.0.1", 443, tls=True, server_name="a", alpn=("h2",))
    plain = http_call("GET", "http://a/", address="10.0.0.1")

    assert inspected(made, tls).tls is inspector
    assert inspected(made, plain).alpn == (("http/1.1",) if inspector else ())
