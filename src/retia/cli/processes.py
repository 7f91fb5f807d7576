"""Commands that become another program of the project: ``controller``, ``agent``.

The command line imports neither; it starts them as modules with ``exec``, with settings as arguments.
"""

from __future__ import annotations

import os
import sys

from retia.cli.errors import CliError
from retia.cli.session import Session

CONTROLLER = "retia.control.main"
AGENT = "retia.agent.main"
KEEPER = "retia.agent.keeper"
RATELIMIT = "retia.ratelimit.main"


def argv(module: str, arguments: list[str]) -> list[str]:
    """How to start a module of the project with this Python."""
    return [sys.executable, "-m", module, *arguments]


def replace(session: Session, module: str, arguments: list[str]) -> None:
    """Becomes that program; does not return."""
    session.prepare()
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execv(sys.executable, argv(module, ["--home", str(session.home), *arguments]))
    except OSError as error:
        raise CliError(f"cannot start {module}: {error.strerror}") from error
