"""The controller's settings: one typed object, made from the command line and handed down."""

from __future__ import annotations

import argparse
import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from retia.aio.unix import LONGEST_SOCKET_PATH
from retia.identity.spiffe import IdentityError, parse_trust_domain
from retia.node.addresses import MAX_INDEX, mesh_ports


class SettingsError(Exception):
    """A setting is wrong; one sentence."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the controller is told."""

    home: Path
    index: int = 0
    """The mesh's index on this host, 0 to 15; it shifts all ports by 100 each."""
    listen: str = "127.0.0.1"
    """The address for agents. On a loopback address only this host's own agent can join."""
    port: int = 0
    """0: 15012, shifted by the index."""
    metrics_port: int = 0
    """Metrics and health on 127.0.0.1; 0: 15014, shifted by the index."""
    advertise_address: str = ""
    """The address by which agents on other hosts reach this controller; empty: ``listen`` unless that is
    loopback or a wildcard."""
    trust_domain: str = "cluster.local"
    authority: Path | None = None
    """A directory with the user's own authority; ``None``: one is made."""
    config: Path | None = None
    """A directory of YAML that is watched beside the store; ``None``: none."""
    lease_s: float = 15.0
    """How long a silent host keeps its endpoints."""
    certificate_lifetime_s: float = 24 * 3600.0
    debounce_s: float = 0.003
    log_level: str = "info"
    log_json: bool | None = None
    """``None``: JSON unless stderr is a terminal."""

    @property
    def xds_port(self) -> int:
        return self.port or mesh_ports(self.index).control

    @property
    def health_port(self) -> int:
        return self.metrics_port or mesh_ports(self.index).metrics

    @property
    def state(self) -> Path:
        return self.home / "controller"

    @property
    def run(self) -> Path:
        return self.home / "run"

    @property
    def api_socket(self) -> Path:
        return self.run / "api.sock"

    @property
    def lifetime(self) -> timedelta:
        return timedelta(seconds=self.certificate_lifetime_s)

    @property
    def join_address(self) -> str:
        """``HOST:PORT`` that agents on other hosts dial; empty: only this host's own can."""
        address = self.advertise_address or self.listen
        where = ipaddress.ip_address(address)
        if where.is_loopback or where.is_unspecified:
            return ""
        return f"[{address}]:{self.xds_port}" if where.version == 6 else f"{address}:{self.xds_port}"


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(
        prog="retia controller", description="Run the controller.", allow_abbrev=False
    )
    add = result.add_argument
    add("--home", default=os.environ.get("RETIA_HOME", "~/.retia"), help="state folder (RETIA_HOME)")
    add("--index", type=int, default=None, metavar="0..15", help="the mesh's index on this host")
    add("--listen", default="", metavar="ADDRESS", help="address for agents; default: 127.0.0.1")
    add("--port", type=int, default=0, help="port for agents; default: 15012 + 100 * index")
    add("--metrics-port", type=int, default=0, metavar="PORT", help="default: 15014 + 100 * index")
    add("--advertise-address", default="", metavar="ADDRESS", help="where other hosts' agents reach it")
    add("--trust-domain", default="cluster.local", metavar="NAME")
    add("--authority", default="", metavar="DIR", help="your own authority's certificates and key")
    add("--config", default="", metavar="DIR", help="a directory of YAML, watched")
    add("--lease", type=float, default=15.0, metavar="S", help="how long a silent host keeps its endpoints")
    add("--certificate-lifetime", type=float, default=24 * 3600.0, metavar="S")
    add("--log-level", choices=("debug", "info", "warning", "error"), default="info")
    add("--log-format", choices=("auto", "json", "text"), default="auto")
    return result


def parse(arguments: Sequence[str]) -> Settings:
    """Raises :class:`SettingsError`; exits for ``--help`` and unknown options."""
    found = parser().parse_args(arguments)
    home = Path(found.home).expanduser().absolute()
    listen = found.listen or ("0.0.0.0" if found.advertise_address else "127.0.0.1")
    settings = Settings(
        home=home,
        index=_index(home) if found.index is None else found.index,
        listen=listen,
        port=found.port,
        metrics_port=found.metrics_port,
        advertise_address=found.advertise_address,
        trust_domain=found.trust_domain,
        authority=Path(found.authority).absolute() if found.authority else None,
        config=Path(found.config).absolute() if found.config else None,
        lease_s=found.lease,
        certificate_lifetime_s=found.certificate_lifetime,
        log_level=found.log_level,
        log_json={"auto": None, "json": True, "text": False}[found.log_format],
    )
    check(settings)
    return settings


def _index(home: Path) -> int:
    """The index that ``retia up`` wrote down; 0 where there is none."""
    try:
        return int((home / "run" / "index").read_text())
    except (OSError, ValueError):
        return 0


def check(settings: Settings) -> None:
    """Raises :class:`SettingsError` for the first wrong value."""
    if not 0 <= settings.index <= MAX_INDEX:
        raise SettingsError(f"--index {settings.index}: a mesh's index is 0 to {MAX_INDEX}")
    for option, port in (("--port", settings.port), ("--metrics-port", settings.metrics_port)):
        if not 0 <= port <= 65535:
            raise SettingsError(f"{option} {port}: ports are 1 to 65535")
    for option, address in (
        ("--listen", settings.listen),
        ("--advertise-address", settings.advertise_address),
    ):
        try:
            ipaddress.ip_address(address or "127.0.0.1")
        except ValueError as error:
            raise SettingsError(f"{option} {address}: an IP address is needed") from error
    try:
        parse_trust_domain(settings.trust_domain)
    except IdentityError as error:
        raise SettingsError(f"--trust-domain: {error}") from error
    if not 0.3 <= settings.lease_s <= 3600:
        raise SettingsError(f"--lease {settings.lease_s:g}: a lease is 0.3 to 3600 seconds")
    if not 2 <= settings.certificate_lifetime_s <= 90 * 24 * 3600:
        raise SettingsError(
            f"--certificate-lifetime {settings.certificate_lifetime_s:g}: 2 seconds to 90 days are allowed"
        )
    if settings.config is not None and not settings.config.is_dir():
        raise SettingsError(f"--config {settings.config}: no such directory")
    longest = len(str(settings.api_socket).encode())
    if longest > LONGEST_SOCKET_PATH:
        raise SettingsError(
            f"RETIA_HOME {settings.home} is too long: {settings.api_socket} has {longest} bytes, and unix "
            f"sockets may have {LONGEST_SOCKET_PATH}; choose a shorter path"
        )
