"""The counting service as a process: ``python -m retia.ratelimit.main``, which ``retia ratelimit`` becomes.

Start: the store is made, the socket is taken, questions are answered. Stop (SIGTERM, SIGINT): no new
connections, what runs is ended, then the store is closed. In memory, counters end with the process; in Redis
they stay. Any failure at start is one sentence on stderr and exit status 1.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from retia.aio.clock import SystemClock
from retia.aio.grpc import Server
from retia.aio.health import HealthServer
from retia.model.limit import PORT
from retia.ratelimit.counting import Store, StoreError
from retia.ratelimit.memory import MemoryStore
from retia.ratelimit.redis_store import RedisStore
from retia.ratelimit.service import Service

REDIS_VARIABLE = "RETIA_RATELIMIT_REDIS"

_log = structlog.get_logger("retia.ratelimit")


class StartError(Exception):
    """The service can't start; one sentence."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the service is told."""

    host: str = "127.0.0.1"
    port: int = PORT
    socket_path: str = ""
    """A unix socket instead of ``host:port``."""
    metrics_port: int = 0
    """Health and metrics on 127.0.0.1; 0: none."""
    redis: str = ""
    """Empty: counters are kept in memory."""


def parse(arguments: Sequence[str], environment: dict[str, str]) -> Settings:
    """Settings from the command line. Raises :class:`StartError`; ``--help`` ends the process."""
    parser = argparse.ArgumentParser(prog="retia ratelimit", description="Count for all proxies together.")
    parser.add_argument(
        "--listen",
        default=f"127.0.0.1:{PORT}",
        metavar="HOST:PORT|unix:PATH",
        help="where proxies ask (default %(default)s)",
    )
    parser.add_argument(
        "--redis",
        default=environment.get(REDIS_VARIABLE, ""),
        metavar="URL",
        help=f"keep counters in this Redis (redis://HOST:PORT/DB); absent: {REDIS_VARIABLE}, then memory",
    )
    parser.add_argument(
        "--metrics-port",
        type=int,
        default=0,
        metavar="PORT",
        help="health and metrics on 127.0.0.1:PORT (default: none)",
    )
    given = parser.parse_args(arguments)
    if not 0 <= given.metrics_port < 65536:
        raise StartError(f"--metrics-port {given.metrics_port}: ports are 1 to 65535")
    if given.listen.startswith("unix:"):
        path = given.listen.removeprefix("unix:")
        return Settings(socket_path=path, metrics_port=given.metrics_port, redis=given.redis)
    host, colon, port = given.listen.rpartition(":")
    if not colon or not port.isdigit() or not 0 < int(port) < 65536:
        raise StartError(f"--listen {given.listen!r} is neither HOST:PORT nor unix:PATH")
    return Settings(host.strip("[]"), int(port), metrics_port=given.metrics_port, redis=given.redis)


async def serve(settings: Settings, stopped: asyncio.Event) -> None:
    """Answer until ``stopped``. Raises :class:`StartError`."""
    store = _store(settings)
    service = Service(store)
    server = Server(service.method)
    health = HealthServer(lambda: True, lambda: dict(service.counters), "retia_ratelimit")
    try:
        await server.listen(_bound(settings))
        if settings.metrics_port:
            await health.listen(_tcp("127.0.0.1", settings.metrics_port))
        kept = "Redis" if settings.redis else "memory"
        where = settings.socket_path or f"{settings.host}:{settings.port}"
        _log.info("counting", at=where, counters=kept)
        await stopped.wait()
    finally:
        await server.stop()
        await health.stop()
        await store.close()


def _store(settings: Settings) -> Store:
    if not settings.redis:
        return MemoryStore(SystemClock())
    try:
        return RedisStore(settings.redis)
    except StoreError as error:
        raise StartError(str(error)) from error


def _bound(settings: Settings) -> socket.socket:
    if not settings.socket_path:
        return _tcp(settings.host, settings.port)
    sock = socket.socket(socket.AF_UNIX)
    try:
        if os.path.exists(settings.socket_path):  # noqa: PTH110 - of an earlier run, which has ended
            os.unlink(settings.socket_path)  # noqa: PTH108
        sock.bind(settings.socket_path)
    except OSError as error:
        sock.close()
        raise StartError(f"unix:{settings.socket_path}: {error.strerror or error}") from error
    return sock


def _tcp(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise StartError(f"{host}:{port}: {error.strerror or error}") from error
    return sock


async def run(settings: Settings) -> None:
    """Answer until SIGTERM or SIGINT."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    await serve(settings, stopped)


def configure_logs() -> None:
    """structlog on stderr: JSON unless it is a terminal."""
    terminal = sys.stderr.isatty()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.dev.ConsoleRenderer() if terminal else structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.getLogger("grpclib").setLevel(logging.CRITICAL)


def main(arguments: Sequence[str] | None = None) -> int:
    """The process; returns its exit status."""
    configure_logs()
    try:
        settings = parse(sys.argv[1:] if arguments is None else arguments, dict(os.environ))
        asyncio.run(run(settings))
    except StartError as error:
        sys.stderr.write(f"retia ratelimit: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
