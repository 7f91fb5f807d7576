"""``retia settings``."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from pydantic import ValidationError

from retia.cli import output
from retia.cli.errors import UsageError
from retia.cli.output import Format, Output
from retia.cli.session import Session

EXAMPLES = (
    "retia settings",
    "retia settings outbound_allow_any=false connect_timeout_s=5",
    "retia settings access_log_file=/dev/stdout access_log_json=true -o json",
)


def settings(
    ctx: typer.Context,
    change: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME=VALUE]...", help="What to change; none: show.")
    ] = None,
    output_format: Output = Format.TABLE,
) -> None:
    """Show the mesh-wide settings, or change some of them.

    What a MeshConfig (an IstioOperator, or the ConfigMap istio) says goes before what is set here; shown is
    what holds.
    """
    from retia.api.schema import MeshSettingsChange

    given = _parse(change or [])
    try:
        request = MeshSettingsChange.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        known = ", ".join(MeshSettingsChange.model_fields)
        why = (
            f"there is none of that name (there are {known})"
            if first["type"] == "extra_forbidden"
            else first["msg"]
        )
        raise UsageError(f"setting {name}: {why}") from error
    session: Session = ctx.obj
    with session.client() as client:
        found = client.change_mesh_settings(request) if given else client.mesh_settings()
    rows = [(name, _shown(value)) for name, value in found.model_dump().items()]
    output.emit(found, output_format, ("SETTING", "VALUE"), rows)


def _parse(change: list[str]) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for text in change:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UsageError(f"{text!r} is not NAME=VALUE, as in outbound_allow_any=false")
        given[name.replace("-", "_")] = value
    return given


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
