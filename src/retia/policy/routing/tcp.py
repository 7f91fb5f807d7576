"""VirtualService rules for opaque TCP and TLS: where connections to a service go instead.

One destination can be honoured on demand; of several weighted ones the heaviest is taken, which is a finding.
"""

from __future__ import annotations

from typing import Any

from retia.config.codes import Code, finding
from retia.model.finding import Finding
from retia.model.ids import qualify
from retia.model.mesh import labels_match, labels_of
from retia.model.resource import Provenance
from retia.model.snapshot import View
from retia.policy.registry import mesh, service
from retia.policy.routing.choose import MESH, virtual_service
from retia.policy.routing.forms import TcpRoute


def tcp_route(view: View, key: tuple[str, int]) -> TcpRoute | None:
    """Where connections to ``(host, port)`` go; ``None``: to the service itself."""
    host, port = key
    chosen = virtual_service(view, host)
    if chosen is None:
        return None
    obj, findings = chosen
    for index, rule in enumerate(obj.spec.tcp):
        if rule.match and not any(_is_for_me(view, block, port) for block in rule.match):
            continue
        field = f"spec.tcp[{index}]"
        notes: list[Finding] = list(findings)
        if len([r for r in rule.route if r.weight]) > 1:
            notes.append(
                finding(
                    Code.UNSUPPORTED_FIELD,
                    "TCP is not split by weight yet; all connections go to the heaviest destination",
                    ref=obj.ref,
                    field=f"{field}.route",
                )
            )
        best = max(rule.route, key=lambda r: r.weight or 0)
        target_host = qualify(best.destination.host, obj.ref.namespace, mesh(view).dns_suffix)
        target_port = _port(view, best.destination, target_host, port)
        return TcpRoute(
            target_host,
            target_port,
            best.destination.subset or "",
            (Provenance(obj.ref, field),),
            tuple(notes),
        )
    return None


def _port(view: View, destination: Any, host: str, port: int) -> int:
    if destination.port is not None and destination.port.number:
        return int(destination.port.number)
    known = service(view, host)
    if known is not None and known.port(port) is None and len(known.ports) == 1:
        return known.ports[0].number
    return port


def _is_for_me(view: View, block: Any, port: int) -> bool:
    """Destination networks aren't compared: the address has already named the service."""
    if block.gateways and MESH not in block.gateways:
        return False
    if block.port and block.port != port:
        return False
    if block.source_namespace and block.source_namespace != view.proxy("namespace"):
        return False
    wanted = labels_of(block.source_labels or ())
    return not wanted or labels_match(wanted, view.proxy("labels"))
