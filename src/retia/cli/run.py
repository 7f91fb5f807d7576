"""``retia run``: this process becomes a program in the mesh.

The agent takes the process in (its addresses, its proxy, its cgroup) while it is still this command; then it
is replaced by the program with ``exec``. So the program keeps the process id, the terminal, the signals and
the exit code, and nothing of Retia stays between it and its caller.
"""

from __future__ import annotations

import os
import shutil
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from retia.cli import output
from retia.cli.errors import CliError, UsageError
from retia.cli.session import Session

if TYPE_CHECKING:
    from retia.api.local import Launch, Launched

LANE_LABEL = "retia.dev/lane"
EXAMPLES = (
    "retia run --service web --port 80:8080/http -- python -m http.server 8080",
    "retia run --service reviews --version v2 --port 9080/http --label team=books -- ./reviews",
    "retia run --service reviews --lane alice --port 9080/http -- ./reviews",
    "retia run -- curl http://reviews:9080/",
)


class Capture(StrEnum):
    AUTO = "auto"
    EBPF = "ebpf"
    EXPLICIT = "explicit"


def run(
    ctx: typer.Context,
    command: Annotated[list[str], typer.Argument(metavar="COMMAND", help="The program to run.")],
    service: Annotated[str, typer.Option("--service", help="Its service; absent: a client only.")] = "",
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Its namespace.")] = "default",
    version: Annotated[str, typer.Option("--version", help="Its version (label 'version').")] = "",
    lane: Annotated[
        str, typer.Option("--lane", help="Serve this traffic lane's requests only (label 'retia.dev/lane').")
    ] = "",
    port: Annotated[
        list[str] | None,
        typer.Option("--port", metavar="PORT[:APPPORT][/PROTOCOL]", help="A port of it; may be repeated."),
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option("--label", metavar="K=V", help="A label; app is the service by itself."),
    ] = None,
    annotation: Annotated[
        list[str] | None, typer.Option("--annotation", metavar="K=V", help="An annotation.")
    ] = None,
    service_account: Annotated[
        str, typer.Option("--service-account", help="Its identity; absent: the service's name.")
    ] = "",
    capture: Annotated[Capture, typer.Option("--capture", help="How its traffic is taken.")] = Capture.AUTO,
    upstream: Annotated[
        list[str] | None,
        typer.Option("--upstream", metavar="NAME:PORT[=LOCALPORT]", help="A service at a port of 127.0.0.1."),
    ] = None,
) -> None:
    """Run a program in the mesh.

    The program needs no change: under eBPF capture its names, ports and connections are the mesh's. Without
    the privileges for it, explicit capture gives it proxy variables and local ports for --upstream instead.
    Which one is in force, and why, is said on stderr. The exit status is the program's own.
    """
    from retia.api.local import Launched
    from retia.cli.launch import dns_label, parse_pairs, parse_ports, parse_upstream

    ports = parse_ports(port or ())
    labels = parse_pairs("--label", label or ())
    if ports and not service:
        raise UsageError("--port needs --service: a port without a service's name cannot be called")
    if service and not ports:
        output.say(f"retia: {service} has no --port; nothing can call it")
    if version:
        if labels.get("version", version) != version:
            raise UsageError(
                f"--version {version} and --label version={labels['version']} contradict each other"
            )
        labels["version"] = version
    if dns_label("--lane", lane):
        if not service:
            raise UsageError("--lane needs --service: a lane's version is one of a service")
        if labels.get(LANE_LABEL, lane) != lane:
            raise UsageError(
                f"--lane {lane} and --label {LANE_LABEL}={labels[LANE_LABEL]} contradict each other"
            )
        labels[LANE_LABEL] = lane
    program = find_program(command[0], os.environ.get("PATH", os.defpath))
    request = _request(
        service=dns_label("--service", service),
        namespace=dns_label("--namespace", namespace),
        service_account=dns_label("--service-account", service_account),
        ports=ports,
        labels=labels,
        annotations=parse_pairs("--annotation", annotation or ()),
        upstreams=tuple(parse_upstream(text) for text in upstream or ()),
        capture=capture.value,
        pid=os.getpid(),
        command=tuple(command),
        cwd=str(Path.cwd()),
    )
    session: Session = ctx.obj
    with session.agent() as agent, output.progress("Joining the mesh"):
        launched = agent.call(request, Launched)
    output.say(f"retia: {launched.workload}: {describe_capture(launched)}")
    become(program, command, launched.env)


def describe_capture(launched: Launched) -> str:
    name = "eBPF" if launched.capture == "ebpf" else "explicit"
    upstreams = ", ".join(f"{u.host}:{u.port} at 127.0.0.1:{u.local_port}" for u in launched.upstreams)
    return f"{name} capture: {launched.reason}" + (f"; {upstreams}" if upstreams else "")


def find_program(name: str, path: str) -> str:
    """The file that ``exec`` would run; :class:`CliError` where there is none."""
    found = shutil.which(name, path=path)
    if found is not None:
        return found
    if "/" in name and Path(name).is_dir():
        raise CliError(f"{name} is a folder, not a program")
    if "/" in name and Path(name).exists():
        raise CliError(f"{name} may not be executed; 'chmod +x' it, or name its interpreter first")
    where = "" if "/" in name else " in PATH"
    raise CliError(f"there is no program {name!r}{where}; check the command after '--'")


def become(program: str, command: list[str], changes: dict[str, str]) -> None:
    """Replaces this process. An empty value in ``changes`` removes the variable."""
    environment = {k: v for k, v in {**os.environ, **changes}.items() if v or k not in changes}
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execve(program, command, environment)
    except OSError as error:
        raise CliError(f"cannot run {program}: {error.strerror}") from error


def _request(**fields: object) -> Launch:
    from pydantic import ValidationError

    from retia.api.local import Launch

    try:
        return Launch.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"{at} is {first['input']!r}: {first['msg']}") from error
