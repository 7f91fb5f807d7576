"""``retia forward``: a service on the caller's own localhost.

This process joins the mesh as a client under explicit capture with one upstream port; its proxy does the
rest. So a browser or curl takes the same way as any workload: mTLS, routes and policy included. The agent
notices when this process ends, however it ends, and takes the proxy away.
"""

from __future__ import annotations

import os
import signal
from typing import Annotated

import typer

from retia.cli import output
from retia.cli.errors import CliError, UsageError
from retia.cli.output import Format, Output
from retia.cli.session import Session
from retia.model.annotation import PURPOSE

EXAMPLES = (
    "retia forward web",
    "retia forward reviews.shop 9080 --local-port 8080",
    "retia forward ratings -o json",
)


def forward(
    ctx: typer.Context,
    service: Annotated[str, typer.Argument(help="The service, by any name that resolves.")],
    port: Annotated[int | None, typer.Argument(min=1, max=65535, help="Its port; absent: its first.")] = None,
    local_port: Annotated[
        int, typer.Option("--local-port", min=0, max=65535, help="The port on 127.0.0.1; 0: any free one.")
    ] = 0,
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Where short names are.")] = "default",
    output_format: Output = Format.TABLE,
) -> None:
    """Reach a service from this machine, for browser and curl, until Ctrl-C."""
    from retia.api.local import Launch, Launched, UpstreamSpec

    session: Session = ctx.obj
    with session.client() as client:
        name = service if "." in service else f"{service}.{namespace}"
        found = client.get_service(name)
    numbers = [p.number for p in found.ports]
    if port is not None and port not in numbers:
        raise UsageError(f"{found.host} has no port {port}; it has {', '.join(map(str, numbers)) or 'none'}")
    if not numbers:
        raise CliError(f"{found.host} has no ports; there is nothing to forward to")
    chosen = port or numbers[0]
    request = Launch(
        namespace=namespace,
        capture="explicit",
        upstreams=(UpstreamSpec(host=found.host, port=chosen, local_port=local_port),),
        annotations={PURPOSE: "forward"},
        pid=os.getpid(),
        command=("retia", "forward", found.host, str(chosen)),
    )
    with session.agent() as agent:
        with output.progress(f"Starting a proxy for {found.host}"):
            launched = agent.call(request, Launched)
        local = launched.upstreams[0].local_port if launched.upstreams else local_port
        address = f"127.0.0.1:{local}"
        if output_format is Format.TABLE:
            protocol = next(p.protocol for p in found.ports if p.number == chosen)
            scheme = "http://" if protocol in ("http", "auto") else ""
            output.write(f"{scheme}{address}\n")
            output.say(f"{found.host}:{chosen} is at {address}; Ctrl-C ends it")
        else:
            output.emit({"address": address, "host": found.host, "port": chosen}, output_format)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    while True:
        signal.pause()
