"""Where the agent's files lie."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from retia.aio.unix import LONGEST_SOCKET_PATH
from retia.node.addresses import MAX_WORKLOAD


class HomeError(Exception):
    """The state folder can't be used; one sentence."""


@dataclass(frozen=True, slots=True)
class Paths:
    """The agent's files below ``RETIA_HOME``."""

    home: Path

    @property
    def run(self) -> Path:
        return self.home / "run"

    @property
    def state(self) -> Path:
        return self.home / "agent"

    @property
    def database(self) -> Path:
        return self.state / "state.sqlite"

    @property
    def keys(self) -> Path:
        return self.state / "keys"

    @property
    def logs(self) -> Path:
        return self.home / "log"

    @property
    def socket(self) -> Path:
        return self.run / "agent.sock"

    @property
    def index(self) -> Path:
        return self.run / "index"

    def proxy(self, slot: int) -> Path:
        """The folder of the proxy in that slot (the instance's number; 0: the host gateway)."""
        return self.run / "p" / str(slot)

    def proxy_log(self, proxy: str) -> Path:
        return self.logs / f"envoy-{slug(proxy)}.log"

    def prepare(self) -> None:
        """Make the folders. Raises :class:`HomeError`."""
        longest = str(self.proxy(MAX_WORKLOAD) / "admin.sock")
        if len(longest.encode()) > LONGEST_SOCKET_PATH:
            spare = LONGEST_SOCKET_PATH - len(longest.encode()) + len(str(self.home).encode())
            raise HomeError(f"RETIA_HOME {self.home} is too long for unix sockets: at most {spare} bytes")
        try:
            for folder in (self.home, self.run, self.state, self.keys, self.logs, self.run / "p"):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise HomeError(f"can't make {error.filename}: {error.strerror}") from error


def slug(name: str) -> str:
    """``name`` as a file name: ``default/reviews-v1-0`` becomes ``default.reviews-v1-0``."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", name.replace("/", "."))
