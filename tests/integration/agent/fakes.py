"""A controller for the agent's tests: real certificates, real translation, no store, no leases, no API.

It can be stopped and started again at the same address, keep silent and count, which a real one can't.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from grpclib.const import Status
from grpclib.exceptions import GRPCError

from retia._generated import agent_pb2 as pb
from retia.aio.grpc import Method, Server
from retia.authority.authority import Authority
from retia.authority.tls import server_context
from retia.control.convert import (
    name_of,
    proxy_of,
    removed_message,
    resource_message,
    type_of,
    workload_of,
)
from retia.control.feed import Feed
from retia.control.hub import Hub
from retia.control.name_table import NameTable
from retia.identity.spiffe import TrustDomain
from retia.identity.token import make_token
from retia.model.ids import HostId
from retia.model.mesh import MeshSettings
from retia.model.resource import Name
from retia.model.snapshot import Snapshot
from retia.policy.facts import FactBase
from retia.translate.translate import build, listed
from retia.xds.cache import Engine

DOMAIN = TrustDomain("cluster.local")
TOKEN_BYTES = bytes(range(32))


class FakeController:
    """Use :meth:`start` and :meth:`stop`; what happened is in the attributes."""

    def __init__(self, folder: Path, lifetime: timedelta = timedelta(hours=24)) -> None:
        self.authority = Authority.open(folder / "authority", DOMAIN, datetime.now(UTC), lifetime=lifetime)
        self.token = make_token(TOKEN_BYTES, self.authority.fingerprint, DOMAIN).encode()
        self._base = FactBase(MeshSettings())
        self._snapshot = Snapshot()
        self._engine = Engine(self._snapshot, build, listed)
        self._hub = Hub()
        self._vips = 0
        self.names = NameTable("epoch-1")
        self.port = 0
        self.workloads: dict[str, Any] = {}
        self.proxies: dict[str, Any] = {}
        self.statuses: dict[tuple[str, Name], Any] = {}
        self.health: dict[str, Any] = {}
        self.hellos: list[Any] = []
        self.learned: set[tuple[str, Name]] = set()
        self.subscribed: list[tuple[str, Name]] = []
        self.signed: list[str] = []
        self.resources_sent = 0
        self.sessions: list[_Session] = []
        self.silent = False
        """Resources are owed and not sent."""
        self._server: Server | None = None
        self._changed = asyncio.Event()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", self.port))
        self.port = sock.getsockname()[1]
        pair = self.authority.controller_pair(datetime.now(UTC))
        context = server_context(pair.chain_pem, pair.key_pem, self.authority.bundle_pem, DOMAIN)
        self._server = Server(
            Method(
                "/retia.agent.v1.Gateway/Session", self._session, pb.AgentMessage, pb.ControllerMessage, True
            ),
            Method("/retia.agent.v1.Identity/Join", self._join, pb.JoinRequest, pb.SignedReply),
            Method("/retia.agent.v1.Identity/Renew", self._renew, pb.RenewRequest, pb.SignedReply),
            Method(
                "/retia.agent.v1.Identity/SignWorkload", self._sign, pb.SignWorkloadRequest, pb.SignedReply
            ),
        )
        await self._server.listen(sock, context)

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop()
            self._server = None

    async def until(self, condition: Any, timeout_s: float = 10.0) -> None:
        """Until ``condition()`` holds; looked at whenever an agent has said something."""
        async with asyncio.timeout(timeout_s):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    def noticed(self) -> None:
        self._changed.set()

    def update(self) -> None:
        """Facts have changed: derive, and send what differs."""
        vips = {}
        changes = self._base.take_changes()
        for host in self._base.hosts_without_vip():
            self._vips += 1
            vips[host] = f"240.240.9.{self._vips}"
        if vips:
            self._base.put_vips(vips)
            changes |= self._base.take_changes()
        self._snapshot, changed = self._snapshot.with_changes(changes)
        self.names.take(self._snapshot, changed)
        self._hub.notify(self._engine.update(self._snapshot, changed))
        for session in self.sessions:
            session.ring()

    def send(self, message: Any) -> None:
        """Send a message to every agent."""
        for session in self.sessions:
            session.extra.append(message)
            session.ring()

    def resource_message(self, proxy: str, name: Name) -> Any:
        """A resource as an agent gets it."""
        feed = next(s.feeds[proxy] for s in self.sessions if proxy in s.feeds)
        return resource_message(self._engine.resource(feed.proxy, name))

    # Identity

    async def _join(self, stream: Any) -> None:
        request = await stream.recv_message()
        if request.token != self.token:
            raise GRPCError(Status.PERMISSION_DENIED, "the join token was not issued here")
        signed = self.authority.sign_host(request.csr_der, request.host, datetime.now(UTC))
        await stream.send_message(self._reply(signed.chain_pem))

    async def _renew(self, stream: Any) -> None:
        request = await stream.recv_message()
        host = self.hellos[-1].host
        signed = self.authority.sign_host(request.csr_der, host, datetime.now(UTC))
        self.signed.append(f"host/{host}")
        await stream.send_message(self._reply(signed.chain_pem))
        self.noticed()

    async def _sign(self, stream: Any) -> None:
        request = await stream.recv_message()
        workload = self.workloads.get(request.workload)
        if workload is None:
            raise GRPCError(Status.PERMISSION_DENIED, f"{request.workload} is not registered on your host")
        signed = self.authority.sign_workload(
            request.csr_der, workload.namespace, workload.service_account, datetime.now(UTC)
        )
        self.signed.append(request.workload)
        await stream.send_message(self._reply(signed.chain_pem))
        self.noticed()

    def _reply(self, chain_pem: bytes) -> Any:
        return pb.SignedReply(
            chain_pem=chain_pem,
            bundle_pem=self.authority.bundle_pem,
            controller_time=int(datetime.now(UTC).timestamp()),
            trust_domain=DOMAIN,
        )

    # Sessions

    async def _session(self, stream: Any) -> None:
        first = await stream.recv_message()
        session = _Session(self, first.hello)
        self.sessions.append(session)
        try:
            await session.run(stream)
        finally:
            self.sessions.remove(session)
            session.close()
            self.noticed()

    def put_workload(self, message: Any, host: str) -> None:
        self.workloads[message.id] = message
        self._base.put_workloads([workload_of(message, HostId(host))])

    def remove_workload(self, workload: str) -> None:
        if self.workloads.pop(workload, None) is not None:
            self._base.put_workloads([], [workload])  # type: ignore[list-item]

    def forget_absent(self, present: Iterable[str]) -> None:
        for workload in set(self.workloads) - set(present):
            self.remove_workload(workload)

    @property
    def engine(self) -> Engine:
        return self._engine

    @property
    def hub(self) -> Hub:
        return self._hub


class _Session:
    def __init__(self, controller: FakeController, hello: Any) -> None:
        self._controller = controller
        self._hello = hello
        self._wake = asyncio.Event()
        self._mesh_due = True
        self._names = (hello.names_epoch, hello.names_revision)
        self.feeds: dict[str, Feed] = {}
        self.extra: list[Any] = []

    def ring(self) -> None:
        self._wake.set()

    def close(self) -> None:
        for feed in self.feeds.values():
            feed.close()

    async def run(self, stream: Any) -> None:
        controller = self._controller
        controller.hellos.append(self._hello)
        welcome = pb.Welcome(protocol=1, software="fake", lease_ms=3000)
        welcome.controller_time = int(datetime.now(UTC).timestamp())
        await stream.send_message(pb.ControllerMessage(welcome=welcome))
        controller.forget_absent(w.id for w in self._hello.workloads)
        for workload in self._hello.workloads:
            controller.put_workload(workload, self._hello.host)
        for proxy in self._hello.proxies:
            self._put_proxy(proxy)
        controller.update()
        controller.noticed()
        writer = asyncio.create_task(self._write(stream), name="fake-write")
        try:
            while (message := await stream.recv_message()) is not None:
                self._take(message)
                controller.noticed()
        finally:
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)

    def _take(self, message: Any) -> None:
        controller = self._controller
        match message.WhichOneof("body"):
            case "workload":
                update = message.workload
                if update.removed:
                    controller.remove_workload(update.removed)
                else:
                    controller.put_workload(update.workload, self._hello.host)
                    if update.workload.id in controller.proxies:
                        self._put_proxy(controller.proxies[update.workload.id])
                controller.update()
            case "proxy":
                update = message.proxy
                if update.removed:
                    controller.proxies.pop(update.removed, None)
                    if update.removed in self.feeds:
                        self.feeds.pop(update.removed).close()
                else:
                    self._put_proxy(update.proxy)
            case "subscribe":
                self._subscribe(message.subscribe)
            case "status":
                self._status(message.status)
            case "learned":
                names = filter(None, map(name_of, message.learned.names))
                controller.learned |= {(message.learned.proxy, n) for n in names}
            case "reply":
                controller.replies = [*getattr(controller, "replies", []), message.reply]

    def _put_proxy(self, message: Any) -> None:
        controller = self._controller
        controller.proxies[message.id] = message
        workload = controller.workloads.get(message.workload)
        model = workload_of(workload, HostId(self._hello.host)) if workload is not None else None
        proxy = proxy_of(message, model, self._hello, DOMAIN)
        feed = self.feeds.get(message.id)
        if feed is not None:
            feed.replace_proxy(proxy)
            return
        feed = self.feeds[message.id] = Feed(controller.engine, controller.hub, proxy, frozenset(), self.ring)
        feed.hold({n: h.version for h in message.held if (n := name_of(h)) is not None})

    def _subscribe(self, message: Any) -> None:
        kind, feed = type_of(message.type_url), self.feeds.get(message.proxy)
        if kind is None or feed is None:
            return
        names = [Name(kind, n) for n in message.names]
        self._controller.subscribed += [(message.proxy, n) for n in names]
        feed.unsubscribe(Name(kind, n) for n in message.gone)
        feed.subscribe(names)

    def _status(self, message: Any) -> None:
        for status in message.resources:
            name = name_of(status)
            if name is not None:
                self._controller.statuses[(message.proxy, name)] = status
        if message.HasField("health"):
            self._controller.health[message.proxy] = message.health

    async def _write(self, stream: Any) -> None:
        controller = self._controller
        while True:
            if self._mesh_due:
                self._mesh_due = False
                mesh = pb.Mesh(trust_domain=DOMAIN, bundle_pem=controller.authority.bundle_pem)
                await stream.send_message(pb.ControllerMessage(mesh=mesh))
            for proxy, feed in [] if controller.silent else list(self.feeds.items()):
                while feed.dirty:
                    delivery = feed.collect()
                    body = pb.Resources(proxy=proxy)
                    body.resources.extend(resource_message(r) for r in delivery.resources.values())
                    body.removed.extend(removed_message(n) for n in delivery.removed)
                    controller.resources_sent += len(delivery.resources)
                    if delivery:
                        await stream.send_message(pb.ControllerMessage(resources=body))
            for data in controller.names.since(*self._names):
                await stream.send_message(pb.ControllerMessage.FromString(data))
            self._names = (controller.names.epoch, controller.names.revision)
            extra, self.extra = self.extra, []
            for message in extra:
                await stream.send_message(message)
            await self._wake.wait()
            self._wake.clear()
