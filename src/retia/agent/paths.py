"""Where the agent's files lie, and how a mesh's index shifts its ports and addresses."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

LONGEST_SOCKET_PATH = 107
"""``sun_path`` holds 108 bytes with the zero at the end (unix(7))."""
MESHES = 16
INSTANCES = 65_000


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
        longest = str(self.proxy(INSTANCES) / "admin.sock")
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


@dataclass(frozen=True, slots=True)
class Plan:
    """Ports and addresses of the mesh with that index (0 to 15) on this host."""

    index: int

    @property
    def controller_port(self) -> int:
        return 15012 + 100 * self.index

    @property
    def agent_port(self) -> int:
        return 15020 + 100 * self.index

    @property
    def gateway_port(self) -> int:
        return 15443 + 100 * self.index

    def published(self, slot: int) -> str:
        """The address at which an instance's proxy takes its callers."""
        return _address(64 + 2 * self.index, slot)

    def app(self, slot: int) -> str:
        """The address of the instance's own: its program and its proxy's outbound listeners."""
        return _address(65 + 2 * self.index, slot)

    @property
    def lock(self) -> str:
        return f"retia-mesh-{self.index}"


INBOUND_PORT = 15006
OUTBOUND_HTTP_PORT = 15001
OUTBOUND_AUTO_PORT = 15002
OUTBOUND_TCP_PORT = 15003
EXPLICIT_PORT = 15001
DNS_PORT = 15053


def _address(second: int, slot: int) -> str:
    if not 0 < slot <= INSTANCES:
        raise ValueError(f"instance number {slot}: 1 to {INSTANCES}")
    return f"127.{second}.{slot >> 8}.{slot & 255}"
