from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest

from retia.node import listening
from retia.node.listening import Listeners, fetch_listeners


@pytest.mark.parametrize("address", ["127.0.0.1", "127.65.200.9", "0.0.0.0"])
def test_a_listener_is_seen_at_its_address_only(address: str) -> None:
    with socket.create_server((address, 0)) as server:
        port = server.getsockname()[1]
        assert fetch_listeners().has(address, port)
        assert not fetch_listeners().has("127.65.200.10", port)
    assert not fetch_listeners().has(address, port)


def test_bound_but_not_listening_is_not_listening() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        assert not fetch_listeners().has(*bound.getsockname())


def test_wildcards_count_only_where_asked_for() -> None:
    found = Listeners(frozenset({("0.0.0.0", 80), ("::", 81)}))
    for port in (80, 81):
        assert found.has("127.0.0.1", port, wildcard=True)
        assert not found.has("127.0.0.1", port)
    assert not found.has("127.0.0.1", 82, wildcard=True)


def test_a_mapped_address_is_given_as_ipv4() -> None:
    with socket.socket(socket.AF_INET6) as server:
        server.bind(("::ffff:127.65.200.9", 0))
        server.listen()
        assert fetch_listeners().has("127.65.200.9", server.getsockname()[1])


def test_proc_says_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        socket.create_server(("127.65.200.9", 0)) as server,
        socket.create_server(("::1", 0), family=socket.AF_INET6),
    ):
        by_netlink = fetch_listeners()

        def refuse(*_: object) -> None:
            raise OSError("no netlink")

        monkeypatch.setattr(listening, "_dump", refuse)
        by_proc = fetch_listeners()
        address, port = server.getsockname()
        assert by_netlink.has(address, port)
        assert by_proc.has(address, port)


def test_proc_is_parsed(tmp_path: Path) -> None:
    head = "  sl  local_address rem_address   st tx_queue\n"
    (tmp_path / "tcp").write_text(
        head
        + "   0: 0100007F:1F90 00000000:0000 0A 00000000\n   1: 0100007F:0050 0100007F:9999 01 00000000\n"
    )
    none = "0" * 32
    (tmp_path / "tcp6").write_text(
        f"{head}   0: {none}:0051 {none}:0000 0A 0\n"
        f"   1: 0000000000000000FFFF00000900417F:0052 {none}:0000 0A 0\n"
    )
    found = set(listening._from_proc(tmp_path))
    assert found == {("127.0.0.1", 8080), ("::", 81), ("127.65.0.9", 82)}


def test_it_is_cheap_enough_to_poll() -> None:
    """Not a benchmark: a bound against reading all connections, say, or starting a process."""
    start = time.process_time()
    for _ in range(20):
        fetch_listeners()
    assert time.process_time() - start < 0.5
