"""``retia restore``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from retia.cli import output
from retia.cli.errors import CliError
from retia.cli.output import Format, Output
from retia.cli.session import Session

EXAMPLES = (
    "retia restore retia-backup-20260101-120000.tar.gz",
    "retia restore mesh.tar.gz --force",
    "retia --home /srv/mesh restore mesh.tar.gz -o json",
)


def restore(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(help="An archive made by 'retia backup'.")],
    force: Annotated[bool, typer.Option("--force", help="Replace a store that is already there.")] = False,
    output_format: Output = Format.TABLE,
) -> None:
    """Put a backup's store and authority into this RETIA_HOME; the controller must be stopped.

    Everything in it is checked before anything is replaced. What was there is kept beside it, as
    'controller.before-restore-<time>'.
    """
    from retia.api.client import ClientError
    from retia.sources import backup

    session: Session = ctx.obj
    target = session.home / "controller"
    try:
        with session.client() as client:
            client.status()
    except ClientError as error:
        if error.code != "no_controller":
            raise
    else:
        raise CliError("a controller is running for this RETIA_HOME; stop it first ('retia down')")
    session.prepare()
    with output.progress(f"Restoring {file}"):
        try:
            manifest = backup.restore(file, target, force=force)
        except backup.BackupError as error:
            raise CliError(str(error)) from error
    facts = {
        "path": str(target),
        "software": manifest.software,
        "created": manifest.created,
        "revision": manifest.revision,
        "objects": manifest.objects,
    }
    made = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(manifest.created))
    if output_format is Format.TABLE:
        output.write(f"{target}\n")
        output.say(f"restored what Retia {manifest.software} saved on {made}")
    else:
        output.emit(facts, output_format)
