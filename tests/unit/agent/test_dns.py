"""DNS: what is answered, what is passed on, and that no packet does harm."""

from __future__ import annotations

import asyncio
import socket
import struct
from pathlib import Path

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retia.agent.dns import (
    Forward,
    Forwarder,
    Reply,
    Resolver,
    Responder,
    parse_resolver,
    read_resolvers,
    reply_to,
)
from retia.agent.names import Entry, NameTable


class Table(NameTable):
    """A table without a file."""

    def __init__(self, *entries: Entry) -> None:
        super().__init__(None)  # type: ignore[arg-type]
        for entry in entries:
            self._insert(entry)


TABLE = Table(
    Entry("reviews.default.svc.cluster.local", "240.240.0.1", ((9080, "http"),)),
    Entry("reviews.shop.svc.cluster.local", "240.240.0.2", ((9080, "http"),)),
    Entry("api.example.com", "240.240.0.3", ((443, "tls"),)),
    Entry("*.wild.example.com", "240.240.0.4", ((443, "tls"),)),
    Entry("novip.example.com", "", ((443, "tls"),)),
)


def ask(
    name: str, kind: str = "A", namespace: str = "default", udp: bool = True
) -> dns.message.Message | None:
    """The answer, or ``None`` if the question is passed on."""
    query = dns.message.make_query(name, kind)
    action = reply_to(query.to_wire(), TABLE, namespace, udp)
    if isinstance(action, Forward):
        return None
    assert isinstance(action, Reply)
    answer = dns.message.from_wire(action.wire)
    assert query.is_response(answer)
    return answer


def addresses(answer: dns.message.Message | None) -> list[str]:
    assert answer is not None
    return [item.to_text() for rrset in answer.answer for item in rrset]


@pytest.mark.parametrize(
    "name",
    [
        "reviews",
        "reviews.default",
        "reviews.default.svc",
        "reviews.default.svc.cluster.local",
        "REVIEWS.Default",
    ],
)
def test_every_spelling_of_a_service_resolves(name: str) -> None:
    assert addresses(ask(name)) == ["240.240.0.1"]


def test_short_names_are_relative_to_who_asks() -> None:
    assert addresses(ask("reviews", namespace="shop")) == ["240.240.0.2"]
    assert addresses(ask("reviews.default", namespace="shop")) == ["240.240.0.1"]
    assert ask("reviews", namespace="elsewhere") is None


@pytest.mark.parametrize("kind", ["AAAA", "MX", "TXT", "SRV", "HTTPS"])
def test_other_questions_about_the_mesh_have_no_data(kind: str) -> None:
    answer = ask("reviews", kind)
    assert answer is not None
    assert (answer.rcode(), answer.answer) == (dns.rcode.NOERROR, [])


def test_hosts_outside_that_the_mesh_knows() -> None:
    assert addresses(ask("api.example.com")) == ["240.240.0.3"]
    assert addresses(ask("a.b.wild.example.com")) == ["240.240.0.4"]
    assert ask("novip.example.com") is None
    assert ask("example.com") is None


def test_expansions_below_the_mesh_that_name_nothing() -> None:
    for name in ("nobody.default.svc.cluster.local", "reviews.default.svc.cluster.local.svc.cluster.local"):
        answer = ask(name)
        assert answer is not None
        assert answer.rcode() == dns.rcode.NXDOMAIN
    assert ask("reviews.corp.example") is None, "a search domain of the host's"


@given(st.binary(max_size=600), st.booleans())
def test_any_packet_is_answered_passed_on_or_dropped(data: bytes, udp: bool) -> None:
    action = reply_to(data, TABLE, "default", udp)
    if isinstance(action, Reply):
        assert action.wire[:2] == data[:2]
        assert action.wire[2] & 0x80
    elif isinstance(action, Forward):
        assert action.wire == data
    else:
        assert len(data) < 12 or data[2] & 0x80


@given(st.integers(0, 60), st.integers(0, 255))
def test_a_damaged_question_is_survived(position: int, value: int) -> None:
    wire = bytearray(dns.message.make_query("reviews.default", "A", use_edns=0).to_wire())
    wire[position % len(wire)] = value
    reply_to(bytes(wire), TABLE, "default", True)


def test_answers_are_not_answered() -> None:
    query = dns.message.make_query("reviews", "A")
    response = dns.message.make_response(query)
    assert reply_to(response.to_wire(), TABLE, "default", True) is None


def test_other_operations_are_refused() -> None:
    wire = bytearray(dns.message.make_query("reviews", "A").to_wire())
    wire[2] |= 5 << 3
    action = reply_to(bytes(wire), TABLE, "default", True)
    assert isinstance(action, Reply)
    assert action.wire[3] & 15 in (dns.rcode.NOTIMP, dns.rcode.FORMERR)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10.0.0.1", Resolver("10.0.0.1", 53)),
        ("10.0.0.1:5353", Resolver("10.0.0.1", 5353)),
        ("fd00::1", Resolver("fd00::1", 53)),
        ("[fd00::1]:5353", Resolver("fd00::1", 5353)),
    ],
)
def test_resolvers_are_written_so(text: str, expected: Resolver) -> None:
    assert parse_resolver(text) == expected


def test_resolv_conf(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text(
        "# comment\nsearch corp\nnameserver 10.0.0.1\nnameserver fe80::1%eth0\noptions ndots:5\nnameserver\n"
    )
    assert read_resolvers(path) == (Resolver("10.0.0.1"), Resolver("fe80::1"))
    assert read_resolvers(tmp_path / "none") == ()


class Upstream(asyncio.DatagramProtocol):
    """A resolver that answers everything with 192.0.2.1, or with silence."""

    def __init__(self, silent: bool = False) -> None:
        self._silent = silent
        self.asked = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: object) -> None:
        self.asked += 1
        if self._silent:
            return
        query = dns.message.from_wire(data)
        response = dns.message.make_response(query)
        response.answer.append(dns.rrset.from_text(query.question[0].name, 1, "IN", "A", "192.0.2.1"))
        self._transport.sendto(response.to_wire(), addr)  # type: ignore[attr-defined]


async def test_what_the_mesh_does_not_own_is_asked_of_the_hosts_resolvers() -> None:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(Upstream, local_addr=("127.0.0.1", 0))
    resolver = Resolver(*transport.get_extra_info("sockname"))
    answer = await through(Forwarder((resolver,)), "www.example.com")
    assert addresses(answer) == ["192.0.2.1"]
    transport.close()


async def test_without_resolvers_the_answer_is_servfail(tmp_path: Path) -> None:
    answer = await through(Forwarder(path=tmp_path / "none"), "www.example.com")
    assert answer.rcode() == dns.rcode.SERVFAIL


async def test_a_silent_resolver_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retia.agent.dns.UPSTREAM_TIMEOUT_S", 0.05)
    loop = asyncio.get_running_loop()
    transport, upstream = await loop.create_datagram_endpoint(
        lambda: Upstream(True), local_addr=("127.0.0.1", 0)
    )
    resolver = Resolver(*transport.get_extra_info("sockname"))
    answer = await through(Forwarder((resolver,)), "www.example.com")
    assert answer.rcode() == dns.rcode.SERVFAIL
    assert upstream.asked == 2
    transport.close()


async def through(forwarder: Forwarder, name: str) -> dns.message.Message:
    """Ask a real responder over UDP."""
    responder = Responder("default", TABLE, forwarder)
    udp = socket.socket(type=socket.SOCK_DGRAM)
    udp.bind(("127.0.0.1", 0))
    tcp = socket.socket()
    tcp.bind(("127.0.0.1", 0))
    udp.setblocking(False)
    where = udp.getsockname()
    await responder.start(udp, tcp)
    client = socket.socket(type=socket.SOCK_DGRAM)
    client.setblocking(False)
    client.connect(where)
    query = dns.message.make_query(name, "A")
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(client, query.to_wire())
    answer = dns.message.from_wire(await asyncio.wait_for(loop.sock_recv(client, 4096), 5))
    client.close()
    responder.close()
    assert query.is_response(answer)
    return answer


async def test_tcp_carries_several_questions() -> None:
    responder = Responder("default", TABLE, Forwarder())
    udp, tcp = socket.socket(type=socket.SOCK_DGRAM), socket.socket()
    for sock in (udp, tcp):
        sock.bind(("127.0.0.1", 0))
    where = tcp.getsockname()
    await responder.start(udp, tcp)
    reader, writer = await asyncio.open_connection(*where)
    for _ in range(2):
        wire = dns.message.make_query("reviews", "A").to_wire()
        writer.write(struct.pack("!H", len(wire)) + wire)
        (size,) = struct.unpack("!H", await asyncio.wait_for(reader.readexactly(2), 5))
        assert addresses(dns.message.from_wire(await reader.readexactly(size))) == ["240.240.0.1"]
    writer.write(b"\0\3abc")
    assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()
    responder.close()
