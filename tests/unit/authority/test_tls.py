"""Who gets through a handshake, on real connections.

Certificates here are made at the real time: OpenSSL has no other clock.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from retia.authority.authority import Authority, Signed
from retia.authority.errors import PeerRefused, PinMismatch
from retia.authority.keys import key_to_pem, make_key
from retia.authority.requests import make_request
from retia.authority.tls import client_context, explain, fetch_root, peer_of, server_context, use_pair
from retia.identity.secret import Secret
from retia.identity.spiffe import TrustDomain
from tests.support.authorities import DOMAIN, authority_in

KEY = make_key()
KEY_PEM = key_to_pem(KEY)
REQUEST = make_request(KEY)


def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return authority_in(tmp_path_factory.mktemp("mesh"), now())


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return authority_in(tmp_path_factory.mktemp("stranger"), now())


def controller(authority: Authority, at: datetime | None = None) -> ssl.SSLContext:
    pair = authority.controller_pair(at or now())
    return server_context(pair.chain_pem, pair.key_pem, authority.bundle_pem, authority.trust_domain)


@asynccontextmanager
async def listening(context: ssl.SSLContext | None) -> AsyncIterator[int]:
    """A server that says who is calling."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = peer_of(writer.get_extra_info("peercert"), DOMAIN)
        writer.write(str(peer).encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def ask(port: int, context: ssl.SSLContext) -> str:
    async with asyncio.timeout(5):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        try:
            return (await reader.read()).decode()
        finally:
            writer.transport.abort()


def host_client(authority: Authority, signed: Signed) -> ssl.SSLContext:
    return client_context(authority.bundle_pem, DOMAIN, signed.chain_pem, KEY_PEM)


async def test_a_host_is_known_by_its_certificate(authority: Authority) -> None:
    async with listening(controller(authority)) as port:
        signed = authority.sign_host(REQUEST, "node-1", now())
        assert await ask(port, host_client(authority, signed)) == "spiffe://cluster.local/retia/host/node-1"


async def test_a_joining_host_gets_through_without_one(authority: Authority) -> None:
    async with listening(controller(authority)) as port:
        root = await fetch_root("127.0.0.1", port, authority.fingerprint)
        assert root == authority.bundle_pem
        assert await ask(port, client_context(root, DOMAIN)) == "None"


async def test_a_controller_of_another_mesh_is_not_joined(authority: Authority, stranger: Authority) -> None:
    async with listening(controller(stranger)) as port:
        with pytest.raises(PinMismatch, match="is not the one that made this join token"):
            await fetch_root("127.0.0.1", port, authority.fingerprint)


async def test_a_thief_with_the_right_root_gains_nothing(authority: Authority, stranger: Authority) -> None:
    pair = stranger.controller_pair(now())
    chain = pair.chain_pem + authority.bundle_pem
    context = server_context(chain, pair.key_pem, stranger.bundle_pem, DOMAIN)
    async with listening(context) as port:
        root = await fetch_root("127.0.0.1", port, authority.fingerprint)
        with pytest.raises(ssl.SSLCertVerificationError) as caught:
            await ask(port, client_context(root, DOMAIN))
        assert "another mesh" in explain(caught.value)


@pytest.mark.parametrize("kind", ["host", "workload"])
async def test_nobody_else_passes_for_a_controller(authority: Authority, kind: str) -> None:
    signed = (
        authority.sign_host(REQUEST, "node-1", now())
        if kind == "host"
        else authority.sign_workload(REQUEST, "shop", "cart", now())
    )
    context = server_context(signed.chain_pem, KEY_PEM, authority.bundle_pem, DOMAIN)
    async with listening(context) as port:
        with pytest.raises(PeerRefused, match="but a controller is needed") as caught:
            await ask(port, client_context(authority.bundle_pem, DOMAIN))
        assert "a controller is needed" in explain(caught.value)


async def refused(port: int, context: ssl.SSLContext) -> bool:
    """TLS 1.3: the client may think itself connected before the server refuses its certificate."""
    try:
        return await ask(port, context) == ""
    except (ssl.SSLError, ConnectionError):
        return True


async def test_a_workload_may_not_speak_to_the_controller(authority: Authority) -> None:
    async with listening(controller(authority)) as port:
        signed = authority.sign_workload(REQUEST, "shop", "cart", now())
        assert await refused(port, host_client(authority, signed))


async def test_a_host_of_another_authority_is_refused(authority: Authority, stranger: Authority) -> None:
    async with listening(controller(authority)) as port:
        assert await refused(port, host_client(authority, stranger.sign_host(REQUEST, "node-1", now())))


async def test_an_expired_host_is_refused(authority: Authority) -> None:
    async with listening(controller(authority)) as port:
        expired = authority.sign_host(REQUEST, "node-1", now() - timedelta(days=1, seconds=1))
        assert await refused(port, host_client(authority, expired))


@pytest.mark.parametrize("skew", [timedelta(minutes=5), timedelta(minutes=-5)], ids=["ahead", "behind"])
async def test_five_minutes_of_skew_are_survived(tmp_path: Path, skew: timedelta) -> None:
    authority = authority_in(tmp_path, now() + skew)
    async with listening(controller(authority, now() + skew)) as port:
        signed = authority.sign_host(REQUEST, "node-1", now() + skew)
        assert "node-1" in await ask(port, host_client(authority, signed))


async def test_an_hour_of_skew_is_diagnosed(tmp_path: Path) -> None:
    authority = authority_in(tmp_path, now() + timedelta(hours=1))
    async with listening(controller(authority, now() + timedelta(hours=1))) as port:
        with pytest.raises(ssl.SSLCertVerificationError) as caught:
            await ask(port, client_context(authority.bundle_pem, DOMAIN))
        assert "this host's clock is behind" in explain(caught.value)


async def test_the_trust_domain_is_part_of_the_name(authority: Authority) -> None:
    async with listening(controller(authority)) as port:
        with pytest.raises(PeerRefused, match="another mesh"):
            await ask(port, client_context(authority.bundle_pem, TrustDomain("else.where")))


async def test_a_renewed_certificate_is_shown_without_a_new_listener(authority: Authority) -> None:
    context = controller(authority)
    async with listening(context) as port:
        pair = authority.controller_pair(now())
        use_pair(context, pair.chain_pem, pair.key_pem)
        assert await ask(port, client_context(authority.bundle_pem, DOMAIN)) == "None"
        with pytest.raises(ssl.SSLError):
            use_pair(context, pair.chain_pem, KEY_PEM)


async def test_what_is_no_tls_is_said(authority: Authority) -> None:
    async def chat(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-x\r\n")
        writer.close()

    server = await asyncio.start_server(chat, "127.0.0.1", 0)
    async with server:
        with pytest.raises(ssl.SSLError) as caught:
            await fetch_root("127.0.0.1", server.sockets[0].getsockname()[1], authority.fingerprint)
        assert "does not speak TLS" in explain(caught.value)


async def test_a_silent_server_is_not_waited_for(authority: Authority) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        with pytest.raises(TimeoutError) as caught:
            await fetch_root("127.0.0.1", silent.getsockname()[1], authority.fingerprint, timeout_s=0.05)
        assert explain(caught.value) == "no answer in time"


async def test_nobody_there_is_an_oserror(authority: Authority) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(OSError) as caught:
        await fetch_root("127.0.0.1", port, authority.fingerprint)
    assert explain(caught.value)


def test_blocking_sockets_are_checked_as_well(authority: Authority) -> None:
    signed = authority.sign_workload(REQUEST, "shop", "cart", now())
    server = server_context(signed.chain_pem, KEY_PEM, authority.bundle_pem, DOMAIN)
    client = client_context(authority.bundle_pem, DOMAIN)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    here = client.wrap_bio(incoming, outgoing)
    there = server.wrap_bio(outgoing, incoming, server_side=True)
    with pytest.raises(PeerRefused):
        for _ in range(5):
            for end in (here, there):
                try:
                    end.do_handshake()
                except ssl.SSLWantReadError:
                    continue
    assert issubclass(client.sslsocket_class, ssl.SSLSocket)
    assert client.sslsocket_class is not ssl.SSLSocket


def names(*pairs: tuple[str, str]) -> dict[str, Any]:
    return {"subjectAltName": pairs}


HOST = ("URI", "spiffe://cluster.local/retia/host/a")


@pytest.mark.parametrize("nothing", [None, {}])
def test_no_certificate_is_nobody(nothing: dict[str, Any] | None) -> None:
    assert peer_of(nothing, DOMAIN) is None


def test_other_kinds_of_names_play_no_part() -> None:
    assert str(peer_of(names(("DNS", "x"), HOST), DOMAIN)) == HOST[1]


@pytest.mark.parametrize(
    ("certificate", "reason"),
    [
        ({"subject": ()}, "has 0 URI names"),
        (names(("DNS", HOST[1])), "has 0 URI names"),
        (names(HOST, HOST), "has 2 URI names"),
        (names(HOST, ("URI", "https://a")), "has 2 URI names"),
        (names(("URI", "https://a")), "must begin with spiffe"),
        (names(("URI", "spiffe://cluster.local/other")), "the path must be"),
        (names(("URI", "spiffe://else.where/retia/host/a")), "another mesh"),
        (names(("URI", "spiffe://cluster.local/retia/host/a%00b")), "host id"),
    ],
)
def test_ambiguous_and_foreign_names_are_refused(certificate: dict[str, Any], reason: str) -> None:
    with pytest.raises(PeerRefused, match=reason):
        peer_of(certificate, DOMAIN)


def test_keys_leave_no_file_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.delattr("os.memfd_create")
    authority = authority_in(tmp_path / "home", now())
    controller(authority)
    with pytest.raises(ssl.SSLError):
        use_pair(controller(authority), b"", Secret(b""))
    assert [p.name for p in tmp_path.iterdir()] == ["home"]
