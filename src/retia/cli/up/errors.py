"""What keeps a mesh from coming up."""

from __future__ import annotations

from retia.cli.errors import CliError


class UpError(CliError):
    """One line: which service or part, what happened, what to do."""
