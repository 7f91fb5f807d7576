"""DNS for this host's captured workloads.

Each workload has a responder of its own (UDP and TCP, at its app address), so the agent knows who asks and
what a short name means there. Names of the mesh are answered at once: A with the service's virtual address,
AAAA and everything else with "no data", so that a client goes on with A. What the mesh does not own goes to
the host's resolvers, unchanged; where there is none, or none answers in time, the client is told so
(SERVFAIL) rather than left waiting.

Search domains: a resolver that expands ``reviews`` to ``reviews.corp.example`` gets an answer from the
host's resolvers (NXDOMAIN most likely) and comes back with the plain name. Expansions below the mesh's own
domain that name nothing are answered NXDOMAIN here: nobody else could know them.

What can't be read is dropped (UDP) or answered FORMERR if there is an id to answer to; nothing in a packet
raises further than :func:`reply_to`.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

import dns.exception
import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import structlog

from retia.agent.keeper import KeeperError
from retia.agent.keeping import KeeperClient
from retia.agent.names import NameTable
from retia.node.addresses import DNS_PORT

TTL_S = 5
"""Virtual addresses are stable; short, so that a service that vanishes is noticed."""
UPSTREAM_TIMEOUT_S = 2.0
TRIES = 2
MAX_PENDING = 512
"""Questions of one workload under way at the host's resolvers; more are answered SERVFAIL."""
MAX_UDP_BYTES = 4096
TCP_IDLE_S = 10.0
MAX_TCP = 64
RESOLV_CONF = Path("/etc/resolv.conf")
_HEADER = struct.Struct("!HHHHHH")
_log = structlog.get_logger("retia.agent.dns")


@dataclass(frozen=True, slots=True)
class Resolver:
    """A DNS server outside the mesh."""

    address: str
    port: int = 53


def parse_resolver(text: str) -> Resolver:
    """``address``, ``address:port`` or ``[address]:port``. Raises ``ValueError``."""
    if text.startswith("["):
        address, _, port = text[1:].partition("]")
        return Resolver(address, int(port.removeprefix(":") or 53))
    if text.count(":") == 1:
        address, _, port = text.partition(":")
        return Resolver(address, int(port))
    return Resolver(text)


def read_resolvers(path: Path = RESOLV_CONF) -> tuple[Resolver, ...]:
    """The ``nameserver`` lines of resolv.conf (resolv.conf(5)); at most three count."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ()
    found = [parts[1] for line in lines if len(parts := line.split()) > 1 and parts[0] == "nameserver"]
    return tuple(Resolver(address.partition("%")[0]) for address in found[:3])


@dataclass(frozen=True, slots=True)
class Forward:
    """The question is somebody else's to answer."""

    wire: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer, as bytes."""

    wire: bytes


def reply_to(wire: bytes, names: NameTable, namespace: str, udp: bool) -> Reply | Forward | None:
    """What to do with a packet; ``None``: drop it. Never raises."""
    if len(wire) < _HEADER.size:
        return None
    number, flags, questions, *_ = _HEADER.unpack_from(wire)
    if flags & dns.flags.QR:
        return None
    try:
        query = dns.message.from_wire(wire, ignore_trailing=True)
    except (dns.exception.DNSException, ValueError, struct.error, IndexError, UnicodeError):
        return Reply(error_wire(number, flags, dns.rcode.FORMERR))
    if query.opcode() != dns.opcode.QUERY:
        return Reply(error_wire(number, flags, dns.rcode.NOTIMP))
    if questions != 1 or len(query.question) != 1:
        return Reply(error_wire(number, flags, dns.rcode.FORMERR))
    try:
        response = _answer(query, names, namespace)
        if response is None:
            return Forward(wire)
        limit = max(512, min(query.payload or 512, MAX_UDP_BYTES)) if udp else 65535
        return Reply(_to_wire(response, limit))
    except (dns.exception.DNSException, ValueError, UnicodeError):
        return Reply(error_wire(number, flags, dns.rcode.SERVFAIL))


def _answer(query: dns.message.Message, names: NameTable, namespace: str) -> dns.message.Message | None:
    question = query.question[0]
    if question.rdclass != dns.rdataclass.IN:
        return None
    name = question.name.to_text(omit_final_dot=True).lower()
    entry = names.find(name, namespace)
    if entry is None:
        if names.owns(name):
            return _response(query, dns.rcode.NXDOMAIN)
        return None
    response = _response(query, dns.rcode.NOERROR)
    if question.rdtype in (dns.rdatatype.A, dns.rdatatype.ANY) and entry.vip and ":" not in entry.vip:
        response.answer.append(dns.rrset.from_text(question.name, TTL_S, "IN", "A", entry.vip))
    elif not entry.vip:
        # Known to the mesh, without an address of its own: the host's resolvers know it, or nobody.
        return None
    return response


def _response(query: dns.message.Message, rcode: dns.rcode.Rcode) -> dns.message.Message:
    response = dns.message.make_response(query, recursion_available=True)
    response.flags |= dns.flags.AA
    response.set_rcode(rcode)
    return response


def _to_wire(response: dns.message.Message, limit: int) -> bytes:
    try:
        return response.to_wire(max_size=limit)
    except dns.exception.TooBig:
        response.answer.clear()
        response.flags |= dns.flags.TC
        return response.to_wire(max_size=limit)


def error_wire(number: int, flags: int, rcode: dns.rcode.Rcode) -> bytes:
    """An answer without a question, for a packet of which only the head can be read."""
    kept = flags & (0x7800 | dns.flags.RD)
    return _HEADER.pack(number, dns.flags.QR | dns.flags.RA | kept | int(rcode), 0, 0, 0, 0)


def servfail(wire: bytes) -> bytes:
    """ "I can't find out", with the question."""
    number, flags, *_ = _HEADER.unpack_from(wire)
    try:
        query = dns.message.from_wire(wire, ignore_trailing=True)
        response = dns.message.make_response(query, recursion_available=True)
        response.set_rcode(dns.rcode.SERVFAIL)
        return response.to_wire()
    except (dns.exception.DNSException, ValueError, UnicodeError):
        return error_wire(number, flags, dns.rcode.SERVFAIL)


class Forwarder:
    """Asks the host's resolvers. ``given`` replaces those of resolv.conf, which is read anew when it
    changes."""

    def __init__(self, given: tuple[Resolver, ...] = (), path: Path = RESOLV_CONF) -> None:
        self._given = given
        self._path = path
        self._stamp: tuple[int, int] | None = None
        self._found: tuple[Resolver, ...] = ()

    def resolvers(self) -> tuple[Resolver, ...]:
        if self._given:
            return self._given
        try:
            stat = self._path.stat()
        except OSError:
            return ()
        stamp = (stat.st_mtime_ns, stat.st_ino)
        if stamp != self._stamp:
            self._stamp, self._found = stamp, read_resolvers(self._path)
        return self._found

    async def ask(self, wire: bytes, udp: bool) -> bytes:
        """The first answer that comes; SERVFAIL if none does within a few seconds."""
        for _ in range(TRIES):
            for resolver in self.resolvers():
                try:
                    async with asyncio.timeout(UPSTREAM_TIMEOUT_S):
                        answer = await (_ask_udp if udp else _ask_tcp)(resolver, wire)
                except (OSError, TimeoutError, asyncio.IncompleteReadError):
                    continue
                return answer
        return servfail(wire)


async def _ask_udp(resolver: Resolver, wire: bytes) -> bytes:
    loop = asyncio.get_running_loop()
    waiting: asyncio.Future[bytes] = loop.create_future()
    number = random.getrandbits(16)
    question = struct.pack("!H", number) + wire[2:]
    transport, _ = await loop.create_datagram_endpoint(
        lambda: _Once(waiting, question), remote_addr=(resolver.address, resolver.port)
    )
    try:
        transport.sendto(question)
        answer = await waiting
    finally:
        transport.close()
    return wire[:2] + answer[2:]


class _Once(asyncio.DatagramProtocol):
    """Takes the first datagram that answers the question."""

    def __init__(self, waiting: asyncio.Future[bytes], question: bytes) -> None:
        self._waiting = waiting
        self._question = question

    def datagram_received(self, data: bytes, _addr: object) -> None:
        if len(data) < _HEADER.size or data[:2] != self._question[:2] or not data[2] & 0x80:
            return
        if not self._waiting.done():
            self._waiting.set_result(data)

    def error_received(self, exc: Exception) -> None:
        if not self._waiting.done():
            self._waiting.set_exception(exc)


async def _ask_tcp(resolver: Resolver, wire: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(resolver.address, resolver.port)
    try:
        writer.write(struct.pack("!H", len(wire)) + wire)
        size = struct.unpack("!H", await reader.readexactly(2))[0]
        return await reader.readexactly(size)
    finally:
        writer.close()


class Responder(asyncio.DatagramProtocol):
    """DNS of one workload."""

    def __init__(self, namespace: str, names: NameTable, forwarder: Forwarder) -> None:
        self._namespace = namespace
        self._names = names
        self._forwarder = forwarder
        self._tasks: set[asyncio.Task[None]] = set()
        self._transport: asyncio.DatagramTransport | None = None
        self._server: asyncio.Server | None = None
        self._open = 0

    async def start(self, udp: socket.socket, tcp: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, sock=udp)
        self._server = await asyncio.start_server(self._serve_tcp, sock=tcp)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()

    def datagram_received(self, data: bytes, addr: object) -> None:
        match reply_to(data, self._names, self._namespace, udp=True):
            case Reply(wire):
                self._send(wire, addr)
            case Forward(wire):
                if len(self._tasks) >= MAX_PENDING:
                    self._send(servfail(wire), addr)
                    return
                task = asyncio.create_task(self._forward(wire, addr), name="dns-forward")
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _forward(self, wire: bytes, addr: object) -> None:
        self._send(await self._forwarder.ask(wire, udp=True), addr)

    def _send(self, wire: bytes, addr: object) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.sendto(wire, addr)  # type: ignore[arg-type]

    async def _serve_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._open >= MAX_TCP:
            writer.close()
            return
        self._open += 1
        try:
            while True:
                async with asyncio.timeout(TCP_IDLE_S):
                    size = struct.unpack("!H", await reader.readexactly(2))[0]
                    wire = await reader.readexactly(size)
                answer = await self.answer_tcp(wire)
                if answer is None:
                    return
                writer.write(struct.pack("!H", len(answer)) + answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, TimeoutError):
            pass
        finally:
            self._open -= 1
            writer.close()

    async def answer_tcp(self, wire: bytes) -> bytes | None:
        match reply_to(wire, self._names, self._namespace, udp=False):
            case Reply(answer):
                return answer
            case Forward(question):
                return await self._forwarder.ask(question, udp=False)
        return None


class DnsService:
    """The responders of all captured workloads. Their sockets are the keeper's: questions wait in them while
    the worker restarts."""

    def __init__(self, keeper: KeeperClient, names: NameTable, resolvers: tuple[Resolver, ...] = ()) -> None:
        self._keeper = keeper
        self._names = names
        self._forwarder = Forwarder(resolvers)
        self._responders: dict[str, tuple[str, Responder]] = {}

    async def open(self, workload: str, namespace: str, address: str) -> None:
        """Answer at ``address``. Raises ``KeeperError``."""
        udp = await self._keeper.open_udp(address, DNS_PORT)
        tcp = await self._keeper.open_tcp(address, DNS_PORT)
        responder = Responder(namespace, self._names, self._forwarder)
        await responder.start(udp, tcp)
        self._responders[workload] = (address, responder)

    async def close(self, workload: str) -> None:
        found = self._responders.pop(workload, None)
        if found is None:
            return
        address, responder = found
        responder.close()
        for kind in ("udp", "tcp"):
            with contextlib.suppress(KeeperError):
                await self._keeper.release(f"{kind}:{address}:{DNS_PORT}")

    def let_go(self) -> None:
        """Stop answering; the sockets stay with the keeper."""
        for _, responder in self._responders.values():
            responder.close()
