"""Long-lived Envoys that are told, by delta updates, what each case and caller has.

Captured traffic is stood in for by the PROXY protocol: in place of asking the kernel where a connection was
bound, the outbound listeners read it from the connection's first line. Everything else is as generated.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import signal
import socket
from pathlib import Path
from typing import Any

from envoy.config.listener.v3 import listener_pb2
from envoy.extensions.filters.listener.proxy_protocol.v3 import proxy_protocol_pb2

from retia.agent.envoy import bootstrap, find_path
from retia.aio.grpc import Server
from retia.model.mesh import Proxy
from retia.model.resource import Built, Name, Resource, TypeUrl
from retia.model.snapshot import Snapshot
from retia.translate import pb
from retia.translate.translate import build, listed
from retia.xds.cache import Engine
from retia.xds.messages import Request
from retia.xds.server import Channel, XdsService
from retia.xds.stream import LISTED, Event, Nacked
from retia.xds.wire import absent, encode
from tests.support.waiting import until

ORIGINAL_DST = "envoy.filters.listener.original_dst"
PROXY_PROTOCOL = "envoy.filters.listener.proxy_protocol"
MAX_NAMES = 400
"""Names that an Envoy has asked for, after which it is started afresh: each is looked at in every case."""
CONVERGE_S = 6.0


class Teller:
    """What one Envoy is told; it is its own subscriber."""

    def __init__(self) -> None:
        self.world = self
        self.engine: Engine | None = None
        self.proxy: Proxy | None = None
        self.secrets: dict[str, Resource] = {}
        self.channel: Channel | None = None
        self.nacks: list[Nacked] = []
        self._changed: dict[str, Resource] = {}

    def accept(self, _peer: Any, _first: Request) -> Teller:
        return self

    def opened(self, channel: Channel) -> None:
        self.channel = channel

    def handle(self, events: list[Event]) -> None:
        self.nacks += [e for e in events if isinstance(e, Nacked)]

    def closed(self) -> None:
        self.channel = None

    def get(self, name: Name) -> Resource | None:
        if name.type is TypeUrl.SECRET and name.name in self.secrets:
            return self.secrets[name.name]
        if self.engine is None or self.proxy is None:
            return absent(name.type, name.name)
        found = self.engine.resource(self.proxy, name)
        return self._captured(found) if name.type is TypeUrl.LISTENER and found.exists else found

    def listed(self, type_url: TypeUrl) -> tuple[str, ...]:
        if self.engine is None or self.proxy is None:
            return ()
        return self.engine.listed(self.proxy, type_url)

    def tell(self, snapshot: Snapshot, proxy: Proxy, secrets: dict[str, Resource]) -> None:
        """From now on this is what there is."""
        self.engine, self.proxy, self.secrets = Engine(snapshot, build, listed), proxy, secrets
        self.nacks = []
        if self.channel is None:
            return
        names = [Name(t, LISTED) for t in TypeUrl]
        for type_url, sub in self.channel.stream._subs.items():
            for held in (sub.asked, sub.sent, sub.waiting, sub.rejected, sub.resource_of):
                names += [Name(type_url, name) for name in held]
        self.channel.changed(dict.fromkeys(names))

    @property
    def settled(self) -> bool:
        """Everything that was sent is acknowledged, and nothing is left to send."""
        if self.channel is None:
            return False
        subs = self.channel.stream._subs
        return not self.channel.stream.due and not any(sub.in_flight for sub in subs.values())

    @property
    def names(self) -> int:
        if self.channel is None:
            return 0
        return sum(len(sub.asked) for sub in self.channel.stream._subs.values())

    def _captured(self, resource: Resource) -> Resource:
        """The listener with the PROXY protocol in place of the kernel's word."""
        if resource.version not in self._changed:
            assert self.engine is not None and self.proxy is not None
            message = listener_pb2.Listener.FromString(_message(resource))
            for each in message.listener_filters:
                if each.name == ORIGINAL_DST:
                    each.name = PROXY_PROTOCOL
                    pb.pack(each.typed_config, proxy_protocol_pb2.ProxyProtocol())
            built = Built(
                resource.name,
                message.SerializeToString(deterministic=True),
                resource.aliases,
                resource.refs,
            )
            self._changed[resource.version] = encode(resource.type, built)
        return self._changed[resource.version]


def _message(resource: Resource) -> bytes:
    from envoy.service.discovery.v3 import discovery_pb2

    value: bytes = discovery_pb2.Resource.FromString(resource.wire).resource.value
    return value


class Running:
    """One Envoy process with its teller."""

    def __init__(self, folder: Path, name: str, dns: tuple[str, int]) -> None:
        self.folder = folder / name
        self.folder.mkdir(mode=0o700)
        self.name = name
        self.dns = dns
        self.teller = Teller()
        self.process: asyncio.subprocess.Process | None = None
        self.server: Server | None = None

    async def tell(self, snapshot: Snapshot, proxy: Proxy, secrets: dict[str, Resource]) -> None:
        """Until the Envoy has it. Starts it where it isn't running, or has heard too many names."""
        if self.teller.names > MAX_NAMES:
            await self.stop()
        self.teller.tell(snapshot, proxy, secrets)
        if self.process is None:
            await self.start()
        try:
            await until(self._converged, CONVERGE_S, pause_s=0.005)
        except TimeoutError as error:
            raise AssertionError(await self._stuck()) from error

    async def _converged(self) -> bool:
        assert self.process is not None
        assert self.process.returncode is None, self.log()
        return self.teller.settled and await self._warm()

    async def _stuck(self) -> str:
        """What Envoy waits for. It is started afresh for the next case."""
        parts = [f"the proxy {self.name} did not take its configuration within {CONVERGE_S:g} s"]
        channel = self.teller.channel
        for type_url, sub in channel.stream._subs.items() if channel is not None else ():
            flying = [r.response.names for r in sub.in_flight.values()]
            if flying or sub.dirty:
                parts.append(f"{type_url.short}: in flight {flying}, to send {sorted(sub.dirty)}")
        parts.append(await self.admin("/stats?filter=warming|server.state"))
        parts.append(self.log())
        await self.stop()
        return "\n".join(parts)

    async def start(self) -> None:
        for path in (self.folder / "xds.sock", self.folder / "admin.sock"):
            path.unlink(missing_ok=True)
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(str(self.folder / "xds.sock"))
        self.server = Server(XdsService(self.teller.accept).method)
        await self.server.listen(sock)
        config = self.folder / "envoy.json"
        config.write_text(json.dumps(self._bootstrap()))
        arguments = ["-c", str(config), "--concurrency", "1", "--use-dynamic-base-id", "-l", "warning"]
        with (self.folder / "envoy.log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                str(find_path()), *arguments, stdout=log, stderr=log, preexec_fn=_die_with_parent
            )

    async def stop(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()
        if self.server is not None:
            await self.server.stop()
        self.process = self.server = None
        self.teller.channel = None

    def log(self) -> str:
        return (self.folder / "envoy.log").read_text()[-4000:]

    def _bootstrap(self) -> dict[str, Any]:
        made = bootstrap("simulated", "simulated", self.folder)
        address = {"address": self.dns[0], "port_value": self.dns[1]}
        made["typed_dns_resolver_config"] = {
            "name": "envoy.network.dns_resolver.cares",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3"
                ".CaresDnsResolverConfig",
                "resolvers": [{"socket_address": address}],
            },
        }
        made.pop("overload_manager", None)
        return made

    async def _warm(self) -> bool:
        """Whether no listener and no cluster is still on its way."""
        text = await self.admin("/stats?filter=warming|dynamic_unready|listener_create_success|server.state")
        values = dict(line.split(": ") for line in text.splitlines() if ": " in line)
        if values.get("server.state") != "0":
            return False
        if int(values.get("listener_manager.total_listeners_warming", "0")):
            return False
        return not int(values.get("cluster_manager.warming_clusters", "0"))

    async def admin(self, path: str) -> str:
        """The answer of the admin interface; empty: it is not there yet."""
        with contextlib.suppress(OSError, TimeoutError, ValueError):
            async with asyncio.timeout(5):
                reader, writer = await asyncio.open_unix_connection(str(self.folder / "admin.sock"))
                try:
                    writer.write(f"GET {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n".encode())
                    data = await reader.read()
                finally:
                    writer.close()
            return data.partition(b"\r\n\r\n")[2].decode()
        return ""


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
