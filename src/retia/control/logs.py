"""Logs: structured, as JSON where no person reads them."""

from __future__ import annotations

import logging
import sys

import structlog

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def configure_logs(level: str, as_json: bool | None) -> None:
    """Once at start. ``as_json=None``: JSON unless stderr is a terminal."""
    if as_json is None:
        as_json = not sys.stderr.isatty()
    number = _LEVELS[level]
    renderer = structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=max(number, logging.WARNING), stream=sys.stderr, format="%(message)s")
    # grpclib logs each broken connection as an application error; sessions log what matters themselves.
    logging.getLogger("grpclib").setLevel(logging.CRITICAL)
