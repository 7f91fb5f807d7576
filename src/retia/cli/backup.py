"""``retia backup``."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from retia import __version__
from retia.cli import output
from retia.cli.errors import CliError
from retia.cli.output import Format, Output
from retia.cli.session import Session

if TYPE_CHECKING:
    from retia.api.schema import BackupResult

EXAMPLES = (
    "retia backup",
    "retia backup /var/backups/mesh.tar.gz",
    "retia backup -o json",
)


def backup(
    ctx: typer.Context,
    file: Annotated[
        Path | None, typer.Argument(help="The archive to write; absent: retia-backup-<time>.tar.gz here.")
    ] = None,
    output_format: Output = Format.TABLE,
) -> None:
    """Save store and authority to one file, with or without a running controller.

    The file holds the authority's private keys; it is made readable for its owner only. Keep it as safely.
    """
    from retia.api.client import ClientError
    from retia.api.schema import BackupRequest

    session: Session = ctx.obj
    target = (file or Path(time.strftime("retia-backup-%Y%m%d-%H%M%S.tar.gz"))).absolute()
    if target.exists():
        raise CliError(f"{target} exists; choose a new file name")
    if not target.parent.is_dir():
        raise CliError(f"there is no folder {target.parent} to write the backup to")
    with output.progress(f"Writing {target}"):
        try:
            with session.client() as client:
                result = client.backup(BackupRequest(path=str(target)))
        except ClientError as error:
            if error.code != "no_controller":
                raise
            result = _offline(session, target)
    if output_format is Format.TABLE:
        output.write(f"{result.path}\n")
        output.say(f"{output.size(result.size_bytes)}; it holds private keys, keep it as safely as those")
    else:
        output.emit(result, output_format)


def _offline(session: Session, target: Path) -> BackupResult:
    from retia.api.schema import BackupResult
    from retia.sources import backup as state

    try:
        made = state.write(session.home / "controller", target, __version__, datetime.now(UTC))
    except state.BackupError as error:
        raise CliError(str(error)) from error
    return BackupResult(
        path=str(target), size_bytes=target.stat().st_size, revision=made.revision, objects=made.objects
    )
