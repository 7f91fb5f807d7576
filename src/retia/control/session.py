"""A session with one host's agent: everything for all of its proxies on one connection.

What comes in changes the registry; what goes out is found by the feeds, one a proxy. Nothing is queued: each
feed keeps a set of names, the name table a revision, the standby copies a revision each, so a slow agent
costs no memory, and what changed twice is sent once. By urgency: resources, names, questions, standby copies.

The certificate says which host is speaking, and only of that host may it speak.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable, Iterator
from typing import Any

import structlog
from grpclib.const import Status
from grpclib.exceptions import GRPCError, StreamTerminatedError

from retia import __version__
from retia._generated import agent_pb2 as pb
from retia.aio.grpc import Method, receive_bytes
from retia.aio.tasks import Wake
from retia.authority.errors import PeerRefused
from retia.authority.tls import peer_of
from retia.control.convert import BadReport, Message, name_of, removed_message, resource_message, type_of
from retia.control.core import Core
from retia.control.feed import Feed
from retia.control.learned import key_of
from retia.control.registry import ProxyState
from retia.control.standby import concerns, names_for
from retia.identity.spiffe import HostIdentity, parse_trust_domain
from retia.model.mesh import Proxy, ProxyKind
from retia.model.resource import Name, TypeUrl

PROTOCOL = 1
"""The highest version of ``retia.agent.v1`` that is spoken here."""
SESSION_METHOD = "/retia.agent.v1.Gateway/Session"
HELLO_TIMEOUT_S = 10.0
HELLO_BYTES = 64 * 1024 * 1024
MESSAGE_BYTES = 16 * 1024 * 1024
QUERY_TIMEOUT_S = 10.0
VALIDATE = "validate"
VALIDATE_TIMEOUT_S = 45.0
"""Agents allow the validation itself 20 s, one at a time."""
STANDBY_BATCH = 5
"""Names of the standby copy taken at a time. A name that nobody asked for yet is built for it, with what it
refers to, and more at once would keep others waiting."""
STANDBY_PAUSE_S = 0.005
STANDBY_EVERY_S = 1.0
"""A copy is brought up to date at most this often: it may be seconds old."""
MAX_QUERIES = 64

_log = structlog.get_logger("retia.control.session")


def _is_local(error: str) -> bool:
    """Whether a refusal says nothing of the content: the port that it asks for isn't free on that host, or
    may not be bound there."""
    return "cannot bind" in error


class Unavailable(Exception):  # noqa: N818
    """The agent can't be asked, or didn't answer; one sentence."""


def host_of(peer: Any, trust_domain: str) -> str:
    """The host whose certificate opened the connection. Raises ``GRPCError``."""
    try:
        identity = peer_of(peer.cert(), parse_trust_domain(trust_domain))
    except PeerRefused as error:
        raise GRPCError(Status.UNAUTHENTICATED, str(error)) from error
    if not isinstance(identity, HostIdentity):
        raise GRPCError(Status.UNAUTHENTICATED, "a host's certificate is needed; join first")
    return str(identity.host)


def certificate_expiry(peer: Any) -> float:
    """Until when the certificate is valid that opened the connection, in seconds since 1970; 0: unknown."""
    until = (peer.cert() or {}).get("notAfter", "")
    return float(ssl.cert_time_to_seconds(until)) if until else 0.0


class _Copy:
    """The standby copy of one workload, as far as it was sent."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.revision = 0
        """Up to which change the copy is complete; 0: it isn't yet."""
        self.target = 0
        self.rest: Iterator[Name] | None = None
        self.not_before = 0.0
        self.complete = False
        """The agent has been told that it is."""


class AgentSession:
    """One session. :meth:`run` is its life."""

    def __init__(self, core: Core, host: str) -> None:
        self.host = host
        self.protocol = 0
        self._core = core
        self._wake = Wake()
        self._feeds: dict[str, Feed] = {}
        self._copies: dict[str, _Copy] = {}
        self._names = ("", 0)
        self._mesh_due = True
        self._questions: list[Message] = []
        self._answers: dict[int, asyncio.Future[Message]] = {}
        self._next_query = 0
        self._replaced = asyncio.Event()

    # -- what others ask -----------------------------------------------------------------------------------

    @property
    def feeds(self) -> dict[str, Feed]:
        return self._feeds

    def ring(self) -> None:
        """There may be something to send."""
        self._wake.ring()

    def replace(self) -> None:
        """The host has opened another session, or has lost its lease: end this one."""
        self._replaced.set()

    async def query(self, proxy: str, path: str) -> Message:
        """Ask a proxy's admin interface. Raises :class:`Unavailable`."""
        return await self._query(pb.Query(proxy=proxy, path=path), QUERY_TIMEOUT_S)

    async def validate(self, proxy: str, resources: list[tuple[Name, bytes]]) -> Message:
        """Ask the host's Envoy whether it would accept resources (serialised, with their names). Raises
        :class:`Unavailable`."""
        query = pb.Query(proxy=proxy, path=VALIDATE)
        for name, wire in resources:
            query.resources.add(type_url=name.type, name=name.name, wire=wire)
        return await self._query(query, VALIDATE_TIMEOUT_S)

    async def _query(self, query: Message, timeout_s: float) -> Message:
        if len(self._answers) >= MAX_QUERIES:
            raise Unavailable(f"{MAX_QUERIES} questions to host {self.host} are open; try again")
        self._next_query += 1
        query.id = self._next_query
        answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._answers[query.id] = answer
        self._questions.append(query)
        self._wake.ring()
        try:
            async with asyncio.timeout(timeout_s):
                return await answer
        except TimeoutError as error:
            raise Unavailable(f"host {self.host} did not answer within {timeout_s:g} s") from error
        finally:
            self._answers.pop(query.id, None)

    # -- life ----------------------------------------------------------------------------------------------

    async def run(self, carrier: Any, hello: Message, certificate_expiry: float = 0.0) -> None:
        """Until the stream ends, the session is replaced, or the task is cancelled."""
        self.protocol = min(hello.protocol or 1, PROTOCOL)
        self._core.registry.on_proxy.append(self._on_proxy)
        try:
            self._greet(hello)
            self._core.registry.hosts[self.host].certificate_expiry = certificate_expiry
            await self._send(carrier, self._welcome())
            await self._serve(carrier)
        finally:
            self._core.registry.on_proxy.remove(self._on_proxy)
            for feed in self._feeds.values():
                feed.close()
            for answer in self._answers.values():
                if not answer.done():
                    answer.set_exception(Unavailable(f"the session with host {self.host} ended"))

    async def _serve(self, carrier: Any) -> None:
        tasks = [
            asyncio.create_task(self._read(carrier), name=f"session-read {self.host}"),
            asyncio.create_task(self._write(carrier), name=f"session-write {self.host}"),
            asyncio.create_task(self._until_replaced(), name=f"session-replaced {self.host}"),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        except (StreamTerminatedError, ConnectionError) as error:
            _log.debug("a session broke", host=self.host, reason=str(error))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _until_replaced(self) -> None:
        await self._replaced.wait()

    def _greet(self, hello: Message) -> None:
        registry = self._core.registry
        held = {p.id: p.held for p in hello.proxies}
        for sentence in registry.hello(hello):
            _log.warning("an agent's report is refused", host=self.host, reason=sentence)
        self._names = (hello.names_epoch, hello.names_revision)
        for proxy, resources in held.items():
            feed = self._feeds.get(proxy)
            if feed is not None:
                feed.hold(_versions(resources))
        self._wake.ring()

    def _welcome(self) -> Message:
        welcome = pb.Welcome(
            protocol=self.protocol,
            software=f"retia-controller/{__version__}",
            lease_ms=int(self._core.settings.lease_s * 1000),
            controller_time=int(self._core.clock.now()),
        )
        return pb.ControllerMessage(welcome=welcome)

    # -- what comes in -------------------------------------------------------------------------------------

    async def _read(self, carrier: Any) -> None:
        while (data := await receive_bytes(carrier, MESSAGE_BYTES)) is not None:
            message = pb.AgentMessage.FromString(data)
            if self.host not in self._core.registry.hosts:
                raise GRPCError(Status.ABORTED, "the lease has lapsed; begin a new session")
            self._core.registry.seen(self.host)
            try:
                self._take(message)
            except BadReport as error:
                _log.warning("an agent's report is refused", host=self.host, reason=str(error))

    def _take(self, message: Message) -> None:
        match message.WhichOneof("body"):
            case "workload":
                self._take_workload(message.workload)
            case "proxy":
                self._take_proxy(message.proxy)
            case "subscribe":
                self._take_subscribe(message.subscribe)
            case "status":
                self._take_status(message.status)
            case "reply":
                answer = self._answers.get(message.reply.id)
                if answer is not None and not answer.done():
                    answer.set_result(message.reply)
            case "learned":
                self._take_learned(message.learned)
            case _:
                # A heartbeat, or a newer agent's message: that it came is all that counts.
                pass

    def _take_workload(self, update: Message) -> None:
        if update.removed:
            self._core.registry.remove_workload(self.host, update.removed)
        if update.HasField("workload"):
            self._core.registry.put_workload(self.host, update.workload)

    def _take_proxy(self, update: Message) -> None:
        if update.removed:
            self._core.registry.remove_proxy(self.host, update.removed)
        if update.HasField("proxy"):
            self._core.registry.put_proxy(self.host, update.proxy)
            self._feeds[update.proxy.id].hold(_versions(update.proxy.held))

    def _take_subscribe(self, subscribe: Message) -> None:
        feed = self._feeds.get(subscribe.proxy)
        kind = type_of(subscribe.type_url)
        if feed is not None and kind is not None:
            feed.unsubscribe(Name(kind, n) for n in subscribe.gone)
            feed.subscribe(Name(kind, n) for n in subscribe.names)

    def _take_status(self, status: Message) -> None:
        found = self._core.registry.hosts[self.host].proxies.get(status.proxy)
        if found is None:
            return
        if status.HasField("health"):
            found.health = status.health
        for resource in status.resources:
            self._take_resource_status(found, resource)

    def _take_resource_status(self, proxy: ProxyState, status: Message) -> None:
        name = name_of(status)
        if name is None:
            return
        match status.state:
            case "acked":
                proxy.acked[name] = status.version
                proxy.nacked.pop(name, None)
            case "nacked":
                proxy.nacked[name] = (status.version, status.error)
                if not _is_local(status.error):
                    self._core.quarantine.refuse(proxy.proxy, name, status.version, status.error)
            case "removed":
                proxy.acked.pop(name, None)
                proxy.nacked.pop(name, None)

    def _take_learned(self, learned: Message) -> None:
        found = self._core.registry.hosts[self.host].proxies.get(learned.proxy)
        if found is None or found.proxy.workload is None:
            return
        key = key_of(self._core.registry.workload(found.proxy.workload))
        names = (name_of(ref) for ref in learned.names)
        engine = self._core.pipeline.engine
        self._core.learned.add(key, [n for n in names if n and engine.resource(found.proxy, n).exists])

    # -- proxies -------------------------------------------------------------------------------------------

    def _on_proxy(self, host: str, proxy_id: str, proxy: Proxy | None) -> None:
        if host != self.host:
            return
        feed = self._feeds.get(proxy_id)
        if proxy is None:
            self._copies.pop(proxy_id, None)
            if feed is not None:
                feed.close()
                del self._feeds[proxy_id]
        elif feed is not None:
            feed.replace_proxy(proxy)
        else:
            self._add_feed(proxy)
        self._wake.ring()

    def _add_feed(self, proxy: Proxy) -> None:
        core = self._core
        feed = self._feeds[proxy.id] = Feed(
            core.pipeline.engine, core.hub, proxy, core.quarantine.refusals, self._wake.ring
        )
        if proxy.workload is not None:
            feed.add_learned(core.learned.names(key_of(core.registry.workload(proxy.workload))))
        if proxy.kind is ProxyKind.SIDECAR:
            self._copies[proxy.id] = _Copy(proxy)

    # -- what goes out -------------------------------------------------------------------------------------

    async def _write(self, carrier: Any) -> None:
        while True:
            # Standby copies can wait, and must not keep the loop from more urgent things.
            busy = await self._send_copies(carrier)
            await self._wake.wait(timeout_s=STANDBY_PAUSE_S if busy else STANDBY_EVERY_S)
            await self._send_urgent(carrier)

    async def _send_urgent(self, carrier: Any) -> None:
        if self._mesh_due:
            self._mesh_due = False
            await self._send(carrier, self._mesh())
        for proxy, feed in list(self._feeds.items()):
            while feed.dirty:
                delivery = feed.collect()
                if delivery:
                    await self._send(
                        carrier, _resources(proxy, delivery.resources.values(), delivery.removed)
                    )
                else:
                    await asyncio.sleep(0)
        for data in self._core.names.since(*self._names):
            await carrier.send_message(data)
        self._names = (self._core.names.epoch, self._core.names.revision)
        questions, self._questions = self._questions, []
        for question in questions:
            await self._send(carrier, pb.ControllerMessage(query=question))

    def _mesh(self) -> Message:
        mesh = pb.Mesh(
            trust_domain=self._core.trust_domain,
            bundle_pem=self._core.bundle_pem,
        )
        return pb.ControllerMessage(mesh=mesh)

    async def _send_copies(self, carrier: Any) -> bool:
        """One batch of one workload's standby copy; false: all are complete."""
        for copy in list(self._copies.values()):
            batch = self._next_names(copy)
            feed = self._feeds.get(copy.proxy.id)
            if batch is None or feed is None:
                continue
            standby = self._standby(feed.proxy, batch)
            if standby.resources or standby.removed or (standby.complete and not copy.complete):
                copy.complete = copy.complete or standby.complete
                await self._send(carrier, pb.ControllerMessage(standby=standby))
            return True
        return False

    def _next_names(self, copy: _Copy) -> list[Name] | None:
        """The names of the next batch; empty: complete up to the target; ``None``: nothing to do."""
        changes = self._core.changes
        if copy.rest is None:
            now = self._core.clock.monotonic()
            if copy.revision == changes.revision or now < copy.not_before:
                return None
            copy.not_before = now + STANDBY_EVERY_S
            copy.target = changes.revision
            copy.rest = iter(self._names_of(copy))
        batch = [name for _, name in zip(range(STANDBY_BATCH), copy.rest, strict=False)]
        if not batch:
            copy.rest = None
            copy.revision = copy.target
        return batch

    def _names_of(self, copy: _Copy) -> list[Name]:
        services = self._core.pipeline.facts.services
        if not copy.revision:
            return list(names_for(copy.proxy, services.values()))
        hosts = self._core.changes.hosts_since(copy.revision)
        fresh = names_for(copy.proxy, [services[h] for h in hosts if h in services])
        changed = self._core.changes.names_since(copy.revision)
        return list(dict.fromkeys([*fresh, *(n for n in changed if concerns(copy.proxy, n))]))

    def _standby(self, proxy: Proxy, names: list[Name]) -> Message:
        standby = pb.Standby(workload=proxy.workload or "", complete=not names)
        engine, hub = self._core.pipeline.engine, self._core.hub
        queue = list(reversed(names))
        done: set[Name] = set()
        while queue:
            name = queue.pop()
            if name in done:
                continue
            done.add(name)
            resource = engine.resource(proxy, name)
            if resource.exists:
                hub.watch(name, _STANDBY_WATCHER)
                standby.resources.append(resource_message(resource))
                queue.extend(resource.refs)
            else:
                hub.leave([name], _STANDBY_WATCHER)
                standby.removed.append(removed_message(name))
        return standby

    @staticmethod
    async def _send(carrier: Any, message: Message) -> None:
        await carrier.send_message(message.SerializeToString())


class _Standby:
    """Keeps names of standby copies in the hub, so that the engine remembers them; the change log hears of
    them elsewhere."""

    def changed(self, names: list[Name]) -> None:
        return


_STANDBY_WATCHER = _Standby()


def _resources(proxy: str, resources: Iterable[Any], removed: Iterable[Name]) -> Message:
    body = pb.Resources(proxy=proxy)
    body.resources.extend(resource_message(r) for r in resources)
    body.removed.extend(removed_message(n) for n in removed)
    return pb.ControllerMessage(resources=body)


def _versions(held: Iterable[Message]) -> dict[Name, str]:
    found = ((name_of(h), h.version) for h in held)
    return {name: version for name, version in found if name is not None and name.type is not TypeUrl.SECRET}


class Gateway:
    """The service: one session a host."""

    def __init__(self, core: Core) -> None:
        self._core = core

    @property
    def method(self) -> Method:
        return Method(SESSION_METHOD, self._session, bytes, bytes, streaming=True)

    async def _session(self, carrier: Any) -> None:
        host = host_of(carrier.peer, self._core.trust_domain)
        async with asyncio.timeout(HELLO_TIMEOUT_S):
            data = await receive_bytes(carrier, HELLO_BYTES)
        first = pb.AgentMessage.FromString(data or b"")
        if first.WhichOneof("body") != "hello":
            raise GRPCError(Status.INVALID_ARGUMENT, "a session begins with hello")
        if first.hello.host != host:
            raise GRPCError(
                Status.PERMISSION_DENIED,
                f"the certificate is host {host}'s; it may not speak for host {first.hello.host}",
            )
        sessions = self._core.sessions
        if host in sessions:
            sessions[host].replace()
        session = sessions[host] = AgentSession(self._core, host)
        _log.info("an agent has connected", host=host, software=first.hello.software)
        try:
            await session.run(carrier, first.hello, certificate_expiry(carrier.peer))
        finally:
            if sessions.get(host) is session:
                del sessions[host]
                self._core.registry.gone_silent(host)
                _log.info("an agent has gone", host=host)
