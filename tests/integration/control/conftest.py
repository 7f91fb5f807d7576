"""A whole controller in this process, and agents that speak the real protocol over real TLS."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from grpclib.client import Channel, StreamStreamMethod, UnaryUnaryMethod

from retia._generated import agent_pb2 as pb
from retia.authority.keys import key_to_pem, make_key
from retia.authority.requests import make_request
from retia.authority.tls import client_context, fetch_root
from retia.cli.tour.stage import free_port
from retia.control.main import Controller
from retia.control.settings import Settings
from retia.identity.spiffe import parse_trust_domain
from retia.identity.token import parse_token
from retia.model.resource import TypeUrl

DOMAIN = parse_trust_domain("cluster.local")


class RunningController:
    """A controller that can be stopped and started over the same state."""

    def __init__(self, home: Path, **settings: Any) -> None:
        port, metrics = free_port(), free_port()
        self.settings = Settings(home=home, port=port, metrics_port=metrics, **settings)
        self.controller: Controller
        self._task: asyncio.Task[None]

    async def start(self) -> None:
        self.controller = Controller(self.settings)
        await self.controller.start()
        self._task = asyncio.create_task(self.controller.run())

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self.controller.close()

    async def api(self, method: str, path: str, body: Any = None) -> Any:
        transport = httpx.AsyncHTTPTransport(uds=str(self.settings.api_socket))
        async with httpx.AsyncClient(transport=transport, base_url="http://retia", timeout=10) as client:
            response = await client.request(method, path, json=body)
            response.raise_for_status()
            return response.json()

    async def apply(self, text: str) -> Any:
        return await self.api("POST", "/v1/apply", {"documents": [{"path": "test.yaml", "text": text}]})

    async def token(self, host: str = "") -> str:
        return str((await self.api("POST", "/v1/tokens", {"host": host}))["token"])


class Agent:
    """A host's agent as the controller sees it."""

    def __init__(self, controller: RunningController, host: str) -> None:
        self.controller = controller
        self.host = host
        self.key = make_key()
        self.chain = b""
        self.bundle = b""
        self.hello = pb.Hello(protocol=1, host=host, software="test")
        self.welcome: Any = None
        self.resources: dict[tuple[str, str], dict[str, Any]] = {}
        self.removed: list[tuple[str, str, str]] = []
        self.names: dict[str, Any] = {}
        self.standby: dict[str, Any] = {}
        self.standby_complete = False
        self.messages: list[Any] = []
        self._channel: Channel | None = None
        self._stream: Any = None
        self._stack = contextlib.AsyncExitStack()
        self._reader: asyncio.Task[None] | None = None

    # -- identity ------------------------------------------------------------------------------------------

    async def join(self, token: str) -> None:
        port = self.controller.settings.xds_port
        self.bundle = await fetch_root("127.0.0.1", port, parse_token(token).fingerprint)
        channel = Channel("127.0.0.1", port, ssl=client_context(self.bundle, DOMAIN))
        try:
            method = UnaryUnaryMethod(
                channel, "/retia.agent.v1.Identity/Join", pb.JoinRequest, pb.SignedReply
            )
            request = pb.JoinRequest(token=token, host=self.host, csr_der=make_request(self.key))
            reply = await method(request, timeout=5)
        finally:
            channel.close()
        self.chain = reply.chain_pem

    def channel(self) -> Channel:
        context = client_context(self.bundle, DOMAIN, self.chain, key_to_pem(self.key))
        return Channel("127.0.0.1", self.controller.settings.xds_port, ssl=context)

    async def call(self, name: str, request: Any, reply: Any = pb.SignedReply) -> Any:
        channel = self.channel()
        try:
            method = UnaryUnaryMethod(channel, f"/retia.agent.v1.Identity/{name}", type(request), reply)
            return await method(request, timeout=5)
        finally:
            channel.close()

    # -- the session ---------------------------------------------------------------------------------------

    async def connect(self) -> None:
        self._channel = self.channel()
        self._stack = contextlib.AsyncExitStack()
        method = StreamStreamMethod(
            self._channel, "/retia.agent.v1.Gateway/Session", pb.AgentMessage, pb.ControllerMessage
        )
        self._stream = await self._stack.enter_async_context(method.open())
        await self._stream.send_message(pb.AgentMessage(hello=self.hello))
        async with asyncio.timeout(5):
            self.welcome = (await self._stream.recv_message()).welcome
        self._reader = asyncio.create_task(self._read())

    async def disconnect(self) -> None:
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)
        if self._channel is not None:
            self._channel.close()
        with contextlib.suppress(Exception):
            await self._stack.aclose()

    async def send(self, **body: Any) -> None:
        await self._stream.send_message(pb.AgentMessage(**body))

    async def _read(self) -> None:
        while (message := await self._stream.recv_message()) is not None:
            self.messages.append(message)
            match message.WhichOneof("body"):
                case "resources":
                    for each in message.resources.resources:
                        held = self.resources.setdefault((message.resources.proxy, each.type_url), {})
                        held[each.name] = each
                    for gone in message.resources.removed:
                        self.removed.append((message.resources.proxy, gone.type_url, gone.name))
                        held = self.resources.get((message.resources.proxy, gone.type_url), {})
                        held.pop(gone.name, None)
                case "names":
                    if message.names.full:
                        self.names.clear()
                    for name in message.names.removed:
                        self.names.pop(name, None)
                    self.names.update({e.host: e for e in message.names.entries})
                case "standby":
                    self.standby.update({(r.type_url, r.name): r for r in message.standby.resources})
                    for gone in message.standby.removed:
                        self.standby.pop((gone.type_url, gone.name), None)
                    self.standby_complete |= message.standby.complete
                case "query":
                    reply = pb.QueryReply(id=message.query.id, status=200, body=message.query.path.encode())
                    await self.send(reply=reply)

    # -- what it says --------------------------------------------------------------------------------------

    def workload(self, name: str, service: str = "", port: int = 9080, n: int = 1, **more: Any) -> Any:
        message = pb.Workload(
            id=f"default/{name}",
            namespace="default",
            service_account=service or "default",
            service=service,
            published_address=f"127.64.0.{n}",
            app_address=f"127.65.0.{n}",
            capture="ebpf",
            healthy=True,
            **more,
        )
        if service:
            message.ports.add(number=port, app_port=port, protocol="http", listening=True)
        return message

    def sidecar(self, name: str, n: int = 1) -> Any:
        return pb.Proxy(
            id=f"default/{name}",
            kind="sidecar",
            workload=f"default/{name}",
            outbound_address=f"127.65.0.{n}",
            outbound_http_port=15001,
            outbound_auto_port=15002,
            outbound_tcp_port=15003,
            inbound_port=15006,
        )

    async def run_workload(self, name: str, service: str = "", n: int = 1) -> None:
        await self.send(workload=pb.WorkloadUpdate(workload=self.workload(name, service, n=n)))
        await self.send(proxy=pb.ProxyUpdate(proxy=self.sidecar(name, n)))

    async def subscribe(self, proxy: str, kind: TypeUrl, *names: str) -> None:
        await self.send(subscribe=pb.Subscribe(proxy=f"default/{proxy}", type_url=kind, names=names))

    def has(self, proxy: str, kind: TypeUrl) -> dict[str, Any]:
        return self.resources.get((f"default/{proxy}", str(kind)), {})


@pytest.fixture
async def controller(request: pytest.FixtureRequest) -> AsyncIterator[RunningController]:
    """Its leases last for 1 s, or for as long as the test's parameter says."""
    with tempfile.TemporaryDirectory(prefix="retia-", dir="/tmp") as home:
        running = RunningController(Path(home), lease_s=getattr(request, "param", 1.0))
        await running.start()
        try:
            yield running
        finally:
            await running.stop()


@pytest.fixture
async def agent(controller: RunningController) -> AsyncIterator[Agent]:
    made = Agent(controller, "one")
    await made.join(await controller.token())
    await made.connect()
    yield made
    await made.disconnect()
