"""``retia up``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from retia.cli import output
from retia.cli.errors import CliError, UsageError
from retia.cli.output import Format, Output
from retia.cli.run import Capture
from retia.cli.session import Session

if TYPE_CHECKING:
    from retia.cli.up.settings import PlatformSettings
    from retia.cli.up.talk import Talk

EXAMPLES = (
    "retia up",
    "retia up shop/retia.yaml --detach",
    "RETIA_HOME=/srv/other retia up other.yaml --envoy /usr/local/bin/envoy",
)

DEFAULT_FILE = "retia.yaml"


def up(
    ctx: typer.Context,
    file: Annotated[
        Path | None, typer.Argument(help="The mesh file; absent: retia.yaml here, if there is one.")
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Go on in the background.")] = False,
    envoy: Annotated[str, typer.Option("--envoy", metavar="PATH", help="Your own Envoy binary.")] = "",
    advertise_address: Annotated[
        str, typer.Option("--advertise-address", help="This host's address for the mesh's other hosts.")
    ] = "",
    capture: Annotated[
        Capture | None, typer.Option("--capture", help="How traffic is taken; absent: the best there is.")
    ] = None,
    output_format: Output = Format.TABLE,
) -> None:
    """Start a mesh: controller, agent and the programs of a mesh file.

    Said again, it applies only the difference to the mesh that runs: changed programs are replaced one by
    one, and a change that fails is taken back. Without a mesh file it starts an empty mesh.
    """
    from retia.cli.up import talk

    session: Session = ctx.obj
    if output_format is not Format.TABLE and not detach:
        raise UsageError("-o needs --detach: in the foreground the programs' output is what is printed")
    from retia.cli.up.settings import PlatformSettings

    settings = PlatformSettings(envoy, advertise_address, capture.value if capture else "")
    chosen = _choose(file)
    running = talk.find(session.up_socket)
    if running is not None:
        result = _again(running, chosen, settings)
    elif detach:
        result = _detached(session, chosen, settings)
    else:
        _foreground(session, chosen, settings)
        return
    if output_format is not Format.TABLE:
        output.emit(result, output_format)


def _choose(file: Path | None) -> Path | None:
    if file is not None:
        if not file.is_file():
            raise CliError(f"there is no mesh file {file}; name one, or say 'retia up' for an empty mesh")
        return file.absolute()
    default = Path(DEFAULT_FILE)
    if default.is_file():
        return default.absolute()
    output.say(f"no {DEFAULT_FILE} here: an empty mesh; 'retia run' adds programs to it")
    return None


def _again(running: Talk, file: Path | None, settings: PlatformSettings) -> dict[str, Any]:
    """The new file goes to the supervisor that runs; it does what differs."""
    from retia.cli.up import spec
    from retia.cli.up.settings import PlatformSettings

    if settings != PlatformSettings():
        raise UsageError(
            "the mesh runs already; --envoy, --advertise-address and --capture need 'retia down' first"
        )
    if file is None:
        raise CliError(f"the mesh runs already (process {running.pid}); name a mesh file to change it")
    spec.load(file, os.environ)
    request = {
        "op": "apply",
        "text": file.read_text(encoding="utf-8"),
        "path": str(file),
        "folder": str(file.parent),
        "environ": dict(os.environ),
    }
    with running:
        result: dict[str, Any] = running.ask(request, output.say)
    output.say(f"the mesh of process {running.pid}: {result['plan']}")
    return {"pid": running.pid, **result}


def _foreground(session: Session, file: Path | None, settings: PlatformSettings) -> None:
    from retia.cli.up import spec
    from retia.cli.up.main import Show, supervise
    from retia.cli.up.spec import Wanted
    from retia.cli.up.view import View

    wanted = spec.load(file, os.environ) if file else Wanted()
    view = View()
    show = Show(view.say, view.up, view.tick, view.stopping)
    supervise(session, settings, wanted, show)


def _detached(session: Session, file: Path | None, settings: PlatformSettings) -> dict[str, Any]:
    """Starts the supervisor in a session of its own and waits until the mesh is up."""
    session.prepare()
    log = session.log / "up.log"
    reader, writer = os.pipe()
    arguments = ["--home", str(session.home), "--report", str(writer)]
    for option, value in (
        ("--file", file),
        ("--envoy", settings.envoy),
        ("--advertise-address", settings.advertise_address),
        ("--capture", settings.capture),
    ):
        if value:
            arguments += [option, str(value)]
    with log.open("ab") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", "retia.cli.up.main", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            pass_fds=(writer,),
            start_new_session=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
    os.close(writer)
    try:
        result = _follow(reader, log)
    except KeyboardInterrupt:
        process.terminate()
        process.wait(60)
        raise
    except CliError:
        process.wait(60)
        raise
    output.say(
        f"the mesh is up after {result['seconds']:.1f} s (process {process.pid}); 'retia down' stops it"
    )
    return {"pid": process.pid, **result}


def _follow(reader: int, log: Path) -> dict[str, Any]:
    """Prints progress until the report's last word."""
    with os.fdopen(reader, "rb") as lines:
        for line in lines:
            message = json.loads(line)
            if "error" in message:
                raise CliError(message["error"])
            if "result" in message:
                result: dict[str, Any] = message["result"]
                return result
            output.say(message["progress"])
    raise CliError(f"the supervisor ended before the mesh was up; its log is {log}")
