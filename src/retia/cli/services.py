"""``retia services``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from retia.cli import output
from retia.cli.output import Format, Namespace, Output
from retia.cli.session import Session

if TYPE_CHECKING:
    from retia.api.schema import EndpointInfo, ServiceInfo

EXAMPLES = (
    "retia services",
    "retia services -n shop -o json",
    "retia services reviews",
)


def services(
    ctx: typer.Context,
    name: Annotated[str | None, typer.Argument(help="One service, with its endpoints.")] = None,
    namespace: Namespace = None,
    output_format: Output = Format.TABLE,
) -> None:
    """Show the mesh's services, or one service with its endpoints."""
    session: Session = ctx.obj
    with session.client() as client:
        if name is not None:
            host = f"{name}.{namespace}" if namespace and "." not in name else name
            detail = client.get_service(host)
            columns = ("PORT", "ADDRESS", "WIRE", "WORKLOAD", "HOST", "IDENTITY", "LABELS")
            output.emit(detail, output_format, columns, [_endpoint(e) for e in detail.endpoint_list])
            return
        items = client.list_services(namespace)
    if not items and output_format is Format.TABLE:
        output.say("no services; start one with 'retia run --service NAME' or 'retia up'")
        return
    listing = ("NAME", "NAMESPACE", "HOST", "VIP", "PORTS", "ENDPOINTS", "MTLS", "FROM")
    output.emit(items, output_format, listing, [_row(item) for item in items])


def _endpoint(item: EndpointInfo) -> tuple[object, ...]:
    address = f"{item.address}:{item.port}"
    shown = output.labels(item.labels)
    return (item.service_port, address, item.wire, item.workload, item.host, item.identity, shown)


def _row(item: ServiceInfo) -> tuple[object, ...]:
    ports = ",".join(f"{p.number}/{p.protocol}" for p in item.ports)
    origin = item.origin or "run"
    return (item.name, item.namespace, item.host, item.vip, ports, item.endpoints, item.mtls, origin)
