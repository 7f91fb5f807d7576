"""The session with the controller: one stream that carries everything for all proxies of the host.

What goes up is kept as *what is yet to be said*, one entry for each workload, proxy, name and status, never
as a queue of messages: a slow or absent controller costs no memory, and later states replace earlier ones.
When a session begins, everything is said anew from :class:`Host`; resources carry the versions that are held,
so that a controller that restarted sends nothing again.

A connection that breaks is tried again after 0.1 to 1 s, then ever slower up to 5 s, with jitter: after a
controller's restart all hosts come back within seconds and not at one instant.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

import structlog

from retia._generated import agent_pb2 as pb
from retia.agent.rpc import RPC_ERRORS, Message, alone, describe, session_method
from retia.model.resource import Name, Resource, TypeUrl

PROTOCOL = 1
FIRST_PAUSE_S = (0.1, 1.0)
MAX_PAUSE_S = 5.0
WELCOME_TIMEOUT_S = 5.0
MAX_NAMES_A_MESSAGE = 2000
MAX_REPLIES = 64
SETTLED_S = 10.0
"""A session that lasted so long was a good one: the next failure begins with short pauses again."""

_log = structlog.get_logger("retia.agent.session")
_TYPES = {str(t): t for t in TypeUrl}


class Host(Protocol):
    """What the session asks of the agent and tells it."""

    def hello(self) -> Message:
        """A complete ``Hello``: every workload and proxy, with what is held."""

    def subscriptions(self) -> dict[tuple[str, TypeUrl], list[str]]:
        """Every name that any proxy wants."""

    def statuses(self) -> Iterable[tuple[str, Message]]:
        """Proxy and ``ResourceStatus`` of everything that proxies hold."""

    def on_connected(self, welcome: Message) -> None: ...

    def on_disconnected(self) -> None: ...

    def on_resources(self, message: Message) -> None: ...

    def on_standby(self, message: Message) -> None: ...

    def on_names(self, message: Message) -> None: ...

    def on_mesh(self, message: Message) -> None: ...

    async def answer(self, query: Message) -> Message:
        """A ``QueryReply``; never raises."""


@dataclass(slots=True)
class _Unsaid:
    """What the controller is yet to be told. Keys keep their order of arrival."""

    workloads: dict[str, Message | None] = field(default_factory=dict)
    proxies: dict[str, Message | None] = field(default_factory=dict)
    wanted: dict[tuple[str, TypeUrl], dict[str, None]] = field(default_factory=dict)
    gone: dict[tuple[str, TypeUrl], dict[str, None]] = field(default_factory=dict)
    statuses: dict[str, dict[Name, Message]] = field(default_factory=dict)
    health: dict[str, Message] = field(default_factory=dict)
    learned: dict[str, dict[Name, None]] = field(default_factory=dict)
    replies: deque[Message] = field(default_factory=lambda: deque(maxlen=MAX_REPLIES))
    heartbeat: bool = False

    def messages(self) -> list[Message]:
        """As messages, in an order in which each refers only to what was said before."""
        out: list[Message] = []
        for key, workload in self.workloads.items():
            update = pb.WorkloadUpdate(workload=workload) if workload is not None else None
            out.append(pb.AgentMessage(workload=update or pb.WorkloadUpdate(removed=key)))
        for key, proxy in self.proxies.items():
            change = pb.ProxyUpdate(proxy=proxy) if proxy is not None else pb.ProxyUpdate(removed=key)
            out.append(pb.AgentMessage(proxy=change))
        for (owner, kind), names in self.wanted.items():
            for part in _parts(list(names)):
                body = pb.Subscribe(proxy=owner, type_url=kind, names=part)
                out.append(pb.AgentMessage(subscribe=body))
        for (owner, kind), names in self.gone.items():
            for part in _parts(list(names)):
                out.append(pb.AgentMessage(subscribe=pb.Subscribe(proxy=owner, type_url=kind, gone=part)))
        for owner in dict.fromkeys([*self.statuses, *self.health]):
            out.extend(self._status_messages(owner))
        for owner, learned in self.learned.items():
            refs = [pb.Ref(type_url=n.type, name=n.name) for n in learned]
            out.extend(pb.AgentMessage(learned=pb.Learned(proxy=owner, names=p)) for p in _parts(refs))
        out.extend(pb.AgentMessage(reply=reply) for reply in self.replies)
        if self.heartbeat and not out:
            out.append(pb.AgentMessage(heartbeat=pb.Heartbeat()))
        return out

    def _status_messages(self, owner: str) -> list[Message]:
        parts = _parts(list(self.statuses.get(owner, {}).values())) or [[]]
        out = [pb.AgentMessage(status=pb.Status(proxy=owner, resources=part)) for part in parts]
        if owner in self.health:
            out[0].status.health.CopyFrom(self.health[owner])
        return out


def _parts(items: list[Any]) -> list[list[Any]]:
    return [items[i : i + MAX_NAMES_A_MESSAGE] for i in range(0, len(items), MAX_NAMES_A_MESSAGE)]


class Session:
    """Keeps a session up. ``connect`` makes a new channel to the controller (it may raise); ``address`` is
    that controller's, for the log."""

    def __init__(self, host: Host, connect: Callable[[], Awaitable[Any]], address: str = "") -> None:
        self._address = address
        self._host = host
        self._connect = connect
        self._unsaid = _Unsaid()
        self._wake = asyncio.Event()
        self._finishing = False
        self._finished = asyncio.Event()
        self._queries: set[asyncio.Task[None]] = set()
        self._stream: Any = None
        self.connected = asyncio.Event()
        self.channel: Any = None
        """The channel in use, for unary calls; ``None`` without a session."""
        self.last_error = ""
        self.hopeful = True
        """No attempt has failed yet: it is worth waiting for the first session."""
        self.since = time.monotonic()
        """When the session was last lost or won (monotonic)."""

    # What to tell

    def tell_workload(self, workload: Message) -> None:
        self._put(self._unsaid.workloads, workload.id, workload)

    def tell_workload_gone(self, workload: str) -> None:
        self._put(self._unsaid.workloads, workload, None)

    def tell_proxy(self, proxy: Message) -> None:
        self._put(self._unsaid.proxies, proxy.id, proxy)

    def tell_proxy_gone(self, proxy: str) -> None:
        for store in (self._unsaid.statuses, self._unsaid.health, self._unsaid.learned):
            store.pop(proxy, None)
        for names in (self._unsaid.wanted, self._unsaid.gone):
            for key in [k for k in names if k[0] == proxy]:
                del names[key]
        self._put(self._unsaid.proxies, proxy, None)

    def subscribe(self, proxy: str, names: Iterable[Name], gone: bool = False) -> None:
        store, other = self._unsaid.wanted, self._unsaid.gone
        if gone:
            store, other = other, store
        for name in names:
            other.get((proxy, name.type), {}).pop(name.name, None)
            store.setdefault((proxy, name.type), {})[name.name] = None
        self._say()

    def tell_status(self, proxy: str, status: Message) -> None:
        name = Name(_TYPES[status.type_url], status.name)
        self._put(self._unsaid.statuses.setdefault(proxy, {}), name, status)

    def tell_health(self, proxy: str, health: Message) -> None:
        self._put(self._unsaid.health, proxy, health)

    def tell_learned(self, proxy: str, names: Iterable[Name]) -> None:
        self._unsaid.learned.setdefault(proxy, {}).update(dict.fromkeys(names))
        self._say()

    def _put(self, store: dict[Any, Any], key: Any, value: Any) -> None:
        store[key] = value
        self._say()

    def _say(self) -> None:
        if self.connected.is_set():
            self._wake.set()
        else:
            # The next session's hello says everything.
            self._unsaid = _Unsaid()

    # The connection

    async def run(self) -> None:
        """Until cancelled, or finished."""
        low, high = FIRST_PAUSE_S
        while not self._finishing:
            started = time.monotonic()
            try:
                await alone(self._one())
                self._lost("the controller ended the session")
            except RPC_ERRORS as error:
                self._lost(describe(error))
            if self._finishing:
                break
            if time.monotonic() - started > SETTLED_S:
                low, high = FIRST_PAUSE_S
            await asyncio.sleep(random.uniform(low, high))
            low, high = min(low * 1.6, MAX_PAUSE_S / 2), min(high * 1.6, MAX_PAUSE_S)
        self._finished.set()

    def _lost(self, reason: str) -> None:
        if self.connected.is_set():
            _log.warning("the controller is away", controller=self._address, reason=reason)
            self.since = time.monotonic()
        elif reason != self.last_error:
            _log.warning("the controller can't be reached", controller=self._address, reason=reason)
        self.last_error = reason
        self.hopeful = False
        self.connected.clear()
        self._unsaid = _Unsaid()
        self._host.on_disconnected()

    async def _one(self) -> None:
        """One session from connecting to its end."""
        channel = await self._connect()
        try:
            async with session_method(channel).open() as stream:
                await self._greet(stream, channel)
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._write(stream), name="session-write")
                    tasks.create_task(self._beat(), name="session-heartbeat")
                    await self._read(stream)
                    raise _Ended
        except* _Ended:
            pass
        except* RPC_ERRORS as group:
            raise _first(group) from group
        finally:
            self.channel = None
            for task in self._queries:
                task.cancel()
            channel.close()

    async def _greet(self, stream: Any, channel: Any) -> None:
        async with asyncio.timeout(WELCOME_TIMEOUT_S):
            await stream.send_message(pb.AgentMessage(hello=self._host.hello()))
            first = await stream.recv_message()
        if first is None or first.WhichOneof("body") != "welcome":
            raise ConnectionError("the controller did not say welcome")
        welcome = first.welcome
        self._lease_s = max(welcome.lease_ms, 300) / 1000
        self.channel = channel
        self.last_error = ""
        self.since = time.monotonic()
        self.connected.set()
        self._unsaid = _Unsaid()
        for (proxy, kind), names in self._host.subscriptions().items():
            self.subscribe(proxy, [Name(kind, n) for n in names])
        for proxy, status in self._host.statuses():
            self.tell_status(proxy, status)
        _log.info("session with the controller", software=welcome.software, protocol=welcome.protocol)
        self._host.on_connected(welcome)

    async def finish(self, timeout_s: float) -> None:
        """Say what is left, end the session in an orderly way, and begin no other.

        Returns when it is done, when the time is over, or at once where there is no session.
        """
        self._finishing = True
        self._wake.set()
        if not self.connected.is_set():
            return
        try:
            async with asyncio.timeout(timeout_s):
                await self._finished.wait()
        except TimeoutError:
            return

    async def _write(self, stream: Any) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            unsaid, self._unsaid = self._unsaid, _Unsaid()
            for message in unsaid.messages():
                await stream.send_message(message)
            if self._finishing and not self._wake.is_set():
                await stream.end()
                return

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._lease_s / 3)
            self._unsaid.heartbeat = True
            self._wake.set()

    async def _read(self, stream: Any) -> None:
        while (message := await stream.recv_message()) is not None:
            self._take(message)

    def _take(self, message: Message) -> None:
        match message.WhichOneof("body"):
            case "resources":
                self._host.on_resources(message.resources)
            case "standby":
                self._host.on_standby(message.standby)
            case "names":
                self._host.on_names(message.names)
            case "mesh":
                self._host.on_mesh(message.mesh)
            case "query":
                self._ask(message.query)
            case _:
                # A newer controller's message, sent although we said our version: nothing to do with it.
                _log.debug("unknown message from the controller")

    def _ask(self, query: Message) -> None:
        if len(self._queries) >= MAX_REPLIES:
            self._reply(pb.QueryReply(id=query.id, status=429, body=b"too many questions at once"))
            return
        task = asyncio.create_task(self._answer(query), name=f"query-{query.id}")
        self._queries.add(task)
        task.add_done_callback(self._queries.discard)

    async def _answer(self, query: Message) -> None:
        self._reply(await self._host.answer(query))

    def _reply(self, reply: Message) -> None:
        self._unsaid.replies.append(reply)
        self._say()


class _Ended(Exception):  # noqa: N818 (a signal, not an error)
    """The stream ended in an orderly way; it takes the other tasks of the session with it."""


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def resource_of(message: Message) -> Resource | None:
    """A resource as it came over the wire; ``None`` for a type that this version does not know."""
    kind = _TYPES.get(message.type_url)
    if kind is None:
        return None
    refs = tuple(Name(_TYPES[r.type_url], r.name) for r in message.refs if r.type_url in _TYPES)
    return Resource(
        type=kind,
        name=message.name,
        version=message.version,
        wire=message.wire,
        aliases=tuple(message.aliases),
        refs=refs,
        exists=has_message(message.wire),
        security=message.security,
    )


def name_of(message: Message) -> Name | None:
    """The name in a ``Removed`` or ``Ref``; ``None`` for an unknown type."""
    kind = _TYPES.get(message.type_url)
    return None if kind is None else Name(kind, message.name)


def has_message(wire: bytes) -> bool:
    """Whether a serialised ``envoy.service.discovery.v3.Resource`` holds a message (field 2).

    Walks over the fields' heads rather than parse the resource, of which one may be large.
    """
    position = 0
    while position < len(wire):
        key, position = _varint(wire, position)
        if key == 2 << 3 | 2:
            return True
        size, position = _varint(wire, position)
        if key & 7 == 2:
            position += size
    return False


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while position < len(data):
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            break
        shift += 7
    return value, position
