"""Where a call enters the proxy that it arrives at."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from retia.control.explaining import Explaining
from retia.explain import Endpoint
from retia.model.resource import Name
from retia.xds.wire import encode
from tests.support.world import Mesh, World

EGRESS = """
    kind: Gateway
    metadata: {name: egress}
    spec:
      selector: {istio: ingressgateway}
      servers: [{port: {number: 8080, name: http, protocol: HTTP}, hosts: ["*"]}]
"""


def entry(mesh: Mesh, port: int) -> str:
    engine = SimpleNamespace(
        listed=lambda _, kind: mesh.listed(kind),
        resource=lambda _, name: encode(name.type, mesh.get(Name(name.type, name.name))),
    )
    core: Any = SimpleNamespace(pipeline=SimpleNamespace(engine=engine))
    state: Any = SimpleNamespace(proxy=mesh.proxy)
    explaining = Explaining(core, None, None)  # type: ignore[arg-type]
    return explaining._entry(state, Endpoint(f"127.64.1.1:{port}"))


def test_a_gateway_takes_a_call_by_the_listener_of_its_port() -> None:
    mesh = World().apply(EGRESS).edge()
    name = entry(mesh, 8080)
    assert mesh.listener(name).address.socket_address.port_value == 8080
    assert entry(mesh, 9) == "at port 9"


def test_a_sidecar_takes_it_by_its_inbound_listener() -> None:
    mesh = World().service("reviews").client()
    assert entry(mesh, 15006) == "inbound"
