"""``retia gateway``: this process becomes a way into the mesh.

A gateway is a workload whose proxy is all there is; what stands behind it is a process that does nothing, and
whose end is the gateway's. In a mesh file ``gateways`` does the same.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from retia.cli import output
from retia.cli.errors import UsageError
from retia.cli.run import become, find_program
from retia.cli.session import Session

EXAMPLES = (
    "retia gateway ingress",
    "retia gateway ingress --port 80:8080 --port 443:8443 --address 192.0.2.7",
    "retia gateway egress --namespace infra --label team=network",
)


def gateway(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its name, also as a service of the mesh.")],
    namespace: Annotated[
        str, typer.Option("--namespace", "-n", help="Its namespace, where its secrets are.")
    ] = "default",
    address: Annotated[str, typer.Option("--address", help="The address to listen on.")] = "0.0.0.0",
    port: Annotated[
        list[str] | None,
        typer.Option(
            "--port",
            metavar="PORT[:BOUND]",
            help="Where a port of Gateway objects is bound; may be repeated.",
        ),
    ] = None,
    label: Annotated[list[str] | None, typer.Option("--label", metavar="K=V", help="A label.")] = None,
    annotation: Annotated[
        list[str] | None, typer.Option("--annotation", metavar="K=V", help="An annotation.")
    ] = None,
    service_account: Annotated[
        str, typer.Option("--service-account", help="Its identity; absent: its name.")
    ] = "",
    trusted_proxies: Annotated[
        int,
        typer.Option("--trusted-proxies", min=0, max=100, help="Proxies before it that may say who calls."),
    ] = 0,
    http3: Annotated[bool, typer.Option("--http3", help="HTTP/3 as well, where it ends HTTPS.")] = False,
) -> None:
    """Run a gateway: an Envoy that listens as Gateway objects say.

    Gateway objects select it by its labels: istio=ingressgateway (istio=egressgateway where its name has
    'egress' in it), and by its name. Without the right to bind ports below 1024, port 80 is bound at 8080
    and 443 at 8443 where nothing is said. It ends with this command.
    """
    from retia.api.local import Launch, Launched
    from retia.cli.launch import dns_label, parse_pairs
    from retia.cli.up import gateways

    edge = gateways.describe(
        dns_label("NAME", name),
        ports=_ports(port or ()),
        address=address,
        labels=parse_pairs("--label", label or ()),
        annotations=parse_pairs("--annotation", annotation or ()),
        trusted_proxies=trusted_proxies,
        http3=http3,
        privileged=gateways.may_bind_low_ports(),
    )
    request = Launch(
        service=name,
        namespace=dns_label("--namespace", namespace),
        service_account=dns_label("--service-account", service_account),
        ports=edge.ports,
        labels=edge.labels,
        annotations=edge.annotations,
        capture="explicit",
        pid=os.getpid(),
        command=("retia", "gateway", name),
        cwd=str(Path.cwd()),
    )
    session: Session = ctx.obj
    with session.agent() as agent, output.progress("Joining the mesh"):
        launched = agent.call(request, Launched)
    output.say(f"retia: {launched.workload}: {gateways.listening(name, edge.ports, address)}")
    program = find_program(gateways.COMMAND[0], os.environ.get("PATH", os.defpath))
    become(program, list(gateways.COMMAND), {})


def _ports(texts: list[str] | tuple[str, ...]) -> dict[int, int]:
    found = {}
    for text in texts:
        port, colon, bound = text.partition(":")
        numbers = [
            int(part) for part in (port, bound if colon else port) if part.isascii() and part.isdigit()
        ]
        if len(numbers) != 2 or not all(0 < number < 65536 for number in numbers):
            raise UsageError(f"--port {text!r} is not PORT[:BOUND], for example 80:8080")
        found[numbers[0]] = numbers[1]
    return found
