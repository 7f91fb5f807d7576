"""The host gateway: mutual TLS for all workloads of a host at one port.

It reads the server name, which names a destination (``outbound_.9080_.v1_.reviews…``), and passes the
connection on unopened to an instance of its host. It holds no key and sees no plaintext; who may call is
decided by the instance's own sidecar.
"""

from __future__ import annotations

from envoy.extensions.filters.network.sni_cluster.v3 import sni_cluster_pb2

from retia.model.resource import Built
from retia.model.snapshot import View
from retia.translate import pb
from retia.translate.chains import add_listener_filter, add_tcp, new_listener, tls_inspector_parts
from retia.translate.names import BLACK_HOLE, GATEWAY

SNI_CLUSTER = "envoy.filters.network.sni_cluster"
HELLO_TIMEOUT_S = 10.0
"""How long a caller may take for its hello; then it is cut off. Arbitrary."""


def build_gateway(view: View) -> Built:
    """The listener; its clusters are asked for on demand, by server name."""
    listener = new_listener(GATEWAY, view.proxy("gateway_address"), view.proxy("gateway_port"), inbound=True)
    add_listener_filter(listener, *tls_inspector_parts())
    pb.duration(listener.listener_filters_timeout, HELLO_TIMEOUT_S)
    chain = listener.filter_chains.add()
    chain.name = "mesh"
    chain.filter_chain_match.transport_protocol = "tls"
    chain.filter_chain_match.application_protocols.extend(("retia-l4", "retia-h2"))
    network = chain.filters.add()
    network.name = SNI_CLUSTER
    pb.pack(network.typed_config, sni_cluster_pb2.SniCluster())
    add_tcp(chain, view, GATEWAY, BLACK_HOLE, on_demand=True)
    return Built(GATEWAY, pb.dump(listener))
