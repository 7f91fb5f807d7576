"""Where this command's mesh lives: one typed object, made in ``main`` and passed down.

Nothing else in the command line reads ``RETIA_HOME`` or builds a socket's path.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from retia.aio.unix import LONGEST_SOCKET_PATH
from retia.cli.errors import CliError

if TYPE_CHECKING:
    from retia.api.client import Client
    from retia.api.local import LocalClient

_LONGEST_SOCKET = "run/p/65000/admin.sock"


@dataclass(frozen=True, slots=True)
class Session:
    """One state folder and the sockets in it."""

    home: Path
    agent_socket: Path

    @classmethod
    def of(cls, home: str, environ: Mapping[str, str]) -> Session:
        """From ``--home`` and the environment; raises :class:`CliError` where the path cannot work."""
        chosen = home or environ.get("RETIA_HOME", "") or "~/.retia"
        path = Path(chosen).expanduser().absolute()
        longest = len(str(path / _LONGEST_SOCKET).encode())
        if longest > LONGEST_SOCKET_PATH:
            room = LONGEST_SOCKET_PATH - len(_LONGEST_SOCKET) - 1
            raise CliError(
                f"RETIA_HOME {path} has {len(str(path).encode())} bytes; the kernel's limit for socket paths "
                f"leaves {room}; choose a shorter path"
            )
        agent = environ.get("RETIA_AGENT_SOCKET", "")
        return cls(path, Path(agent) if agent else path / "run" / "agent.sock")

    @property
    def run(self) -> Path:
        return self.home / "run"

    @property
    def log(self) -> Path:
        return self.home / "log"

    @property
    def api_socket(self) -> Path:
        return self.run / "api.sock"

    @property
    def up_socket(self) -> Path:
        return self.run / "up.sock"

    @property
    def index_file(self) -> Path:
        return self.run / "index"

    def client(self, timeout_s: float = 35.0) -> Client:
        """A connection to the controller; use it as a context manager. ``timeout_s`` bounds each call."""
        from retia.api.client import Client

        return Client(self.api_socket, timeout_s=timeout_s)

    def agent(self, timeout_s: float = 30.0) -> LocalClient:
        """A connection to this host's agent; use it as a context manager."""
        from retia.api.local import LocalClient

        return LocalClient(self.agent_socket, timeout_s)

    def prepare(self) -> None:
        """Makes the state folder, for its owner only."""
        try:
            self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
            for folder in (self.run, self.log):
                folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise CliError(
                f"cannot make the state folder {self.home}: {error.strerror}; set RETIA_HOME to a folder "
                "that you may write to"
            ) from error
        if not os.access(self.home, os.W_OK | os.X_OK):
            raise CliError(f"may not write to the state folder {self.home}; set RETIA_HOME to another folder")
