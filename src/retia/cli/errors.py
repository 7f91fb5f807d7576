"""What ends a command other than success, and how that is shown.

Exit codes: 0 done; 1 failed (or, for ``check``, something is wrong); 2 the command line itself is wrong;
130 interrupted. ``retia run`` becomes the program that it starts, so its exit code is that program's.
"""

from __future__ import annotations

FAILED = 1
USAGE = 2
INTERRUPTED = 130


class CliError(Exception):
    """The command cannot go on. The message is one line: what, where, the value, the rule, the next step."""

    exit_code = FAILED


class ClosedPipeError(CliError):
    """Whoever reads our output has seen enough: no failure, and nothing to say."""

    exit_code = 0


class UsageError(CliError):
    """The command line contradicts itself; raised before any work."""

    exit_code = USAGE
