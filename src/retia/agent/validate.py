"""Whether this host's Envoy accepts resources, asked before any proxy gets them: ``envoy --mode validate``.

All resources go into one bootstrap: listeners and clusters as they are, route configurations and virtual
hosts into a listener of their own, so that their routes are checked as well. Nothing is opened or connected
to.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from envoy.config.bootstrap.v3 import bootstrap_pb2
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_components_pb2, route_pb2
from envoy.extensions.bootstrap.internal_listener.v3 import internal_listener_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from envoy.extensions.resource_monitors.downstream_connections.v3 import downstream_connections_pb2
from envoy.extensions.resource_monitors.fixed_heap.v3 import fixed_heap_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf import json_format
from google.protobuf.message import DecodeError

from retia.agent import envoy
from retia.model.resource import TypeUrl

TIMEOUT_S = 20.0
"""A validation takes a tenth of a second on a machine with nothing else to do."""
MOST_COMPLAINT = 2000
_NAMED = (downstream_connections_pb2, fixed_heap_pb2, http_protocol_options_pb2, internal_listener_pb2)
"""Modules whose types the bootstrap of every proxy names; loaded, they can be read."""
_CHECKS = asyncio.Semaphore(1)
"""One at a time: it is a whole Envoy each."""


async def complaint(binary: Path, wires: Iterable[bytes]) -> str:
    """What Envoy says against the resources (serialised ``envoy.service.discovery.v3.Resource``); empty: it
    accepts them. Raises :class:`~retia.agent.envoy.EnvoyError` where it could not be asked."""
    try:
        message = bootstrap(wires)
    except DecodeError as error:
        return f"not one of Envoy's messages: {error}"
    async with _CHECKS:
        with tempfile.TemporaryDirectory(prefix="retia-validate-") as folder:
            path = Path(folder) / "bootstrap.pb"
            path.write_bytes(message.SerializeToString(deterministic=True))
            return await _ask(binary, path)


async def _ask(binary: Path, path: Path) -> str:
    try:
        process = await asyncio.create_subprocess_exec(
            *(str(binary), "--mode", "validate", "-c", str(path), "-l", "error"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
    except OSError as error:
        raise envoy.EnvoyError(f"{binary} can't be run: {error}") from error
    try:
        async with asyncio.timeout(TIMEOUT_S):
            output, _ = await process.communicate()
    except TimeoutError as error:
        raise envoy.EnvoyError(f"{binary} did not finish a validation within {TIMEOUT_S:g} s") from error
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode == 0:
        return ""
    return output.decode(errors="replace").strip()[-MOST_COMPLAINT:] or f"exit status {process.returncode}"


def bootstrap(wires: Iterable[bytes]) -> Any:
    """A bootstrap that holds all the resources. Raises ``DecodeError``."""
    message = bootstrap_pb2.Bootstrap()
    json_format.ParseDict(envoy.bootstrap("validate", "", Path("/nowhere")), message)
    message.ClearField("admin")
    message.dynamic_resources.ClearField("lds_config")
    message.dynamic_resources.ClearField("cds_config")
    static = message.static_resources
    configs = []
    for wire in wires:
        resource = discovery_pb2.Resource.FromString(wire).resource
        match resource.type_url:
            case TypeUrl.CLUSTER:
                static.clusters.append(cluster_pb2.Cluster.FromString(resource.value))
            case TypeUrl.LISTENER:
                static.listeners.append(listener_pb2.Listener.FromString(resource.value))
            case TypeUrl.ROUTE:
                configs.append(route_pb2.RouteConfiguration.FromString(resource.value))
            case TypeUrl.VIRTUAL_HOST:
                config = route_pb2.RouteConfiguration(name=f"host-{len(configs)}")
                config.virtual_hosts.append(route_components_pb2.VirtualHost.FromString(resource.value))
                configs.append(config)
    for number, config in enumerate(configs):
        _add_listener(static.listeners.add(), number, config)
    return message


def _add_listener(listener: Any, number: int, config: Any) -> None:
    listener.name = f"validate-{number}"
    listener.address.socket_address.address = "127.0.0.1"
    listener.address.socket_address.port_value = 1 + number % 65535
    config.ClearField("vhds")
    config.validate_clusters.value = False
    manager = http_connection_manager_pb2.HttpConnectionManager(stat_prefix="validate")
    manager.upgrade_configs.add().upgrade_type = "CONNECT"
    manager.route_config.CopyFrom(config)
    router = manager.http_filters.add()
    router.name = "envoy.filters.http.router"
    router.typed_config.Pack(router_pb2.Router())
    network = listener.filter_chains.add().filters.add()
    network.name = "envoy.filters.network.http_connection_manager"
    network.typed_config.Pack(manager)
