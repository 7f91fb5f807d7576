"""``retia agent``: becomes the keeper, which starts the worker.

``exec`` keeps the process id, so whoever started the agent (a shell, ``retia up``, systemd) has the keeper.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Sequence

from retia.agent.keeper import STATUS_WRONG_SETTINGS
from retia.agent.settings import Settings, SettingsError, parse


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status; as the keeper it does not return."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        settings, is_worker = parse(arguments)
        if is_worker:
            return run_worker(settings)
        become_keeper(settings, arguments)
    except SettingsError as error:
        sys.stderr.write(f"retia agent: {error}\n")
        return STATUS_WRONG_SETTINGS
    return 0


def become_keeper(settings: Settings, arguments: Sequence[str]) -> None:
    """Check what can be checked without a network, then become the keeper. Raises :class:`SettingsError`."""
    from retia.agent import envoy
    from retia.agent.paths import HomeError, Paths
    from retia.identity.token import TokenError, parse_token

    paths = Paths(settings.home)
    try:
        if settings.join:
            parse_token(settings.join)
        check_local(settings.advertise_address)
        paths.prepare()
        envoy.find_path(settings.envoy)
    except (HomeError, TokenError, envoy.EnvoyError) as error:
        raise SettingsError(str(error)) from error
    worker = [sys.executable, "-m", "retia.agent.main", "--worker", *arguments]
    os.execv(sys.executable, [sys.executable, "-m", "retia.agent.keeper", str(paths.run), *worker])


def check_local(address: str) -> None:
    """That the host gateway can listen there. Raises :class:`SettingsError`."""
    if not address:
        return
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
        try:
            probe.bind((address, 0))
        except OSError as error:
            raise SettingsError(
                f"--advertise-address {address}: no interface of this host has it ({error.strerror}); "
                "'ip address' lists those that there are"
            ) from error


def run_worker(settings: Settings) -> int:
    import asyncio

    from retia.agent.worker import work

    set_up_logs(settings)
    return asyncio.run(work(settings))


def set_up_logs(settings: Settings) -> None:
    """structlog on stderr: JSON unless it is a terminal."""
    import structlog

    as_json = not sys.stderr.isatty() if settings.log_json is None else settings.log_json
    renderer = structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(settings.log_level.upper())),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
    )


if __name__ == "__main__":
    sys.exit(main())
