"""``retia ratelimit``."""

from __future__ import annotations

import os
import sys

import typer

from retia.cli import processes
from retia.cli.errors import CliError

EXAMPLES = (
    "retia ratelimit",
    "retia ratelimit --redis redis://127.0.0.1:6379/0 --metrics-port 9102",
    "retia run --service ratelimit --namespace retia-system --port 8081/grpc -- retia ratelimit",
)


def ratelimit(ctx: typer.Context) -> None:
    """Count for all proxies together: the service behind limits with 'scope: Global'.

    It is an ordinary service of the mesh, so run it there: 'ratelimit: {}' in a mesh file does. Its options
    are its own; 'retia ratelimit --help-all' lists them.
    """
    arguments = ["--help" if a == "--help-all" else a for a in ctx.args]
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execv(sys.executable, processes.argv(processes.RATELIMIT, arguments))
    except OSError as error:
        raise CliError(f"cannot start {processes.RATELIMIT}: {error.strerror}") from error
