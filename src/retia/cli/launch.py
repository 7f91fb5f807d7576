"""Arguments of ``retia run`` and ``retia forward`` as a request to the host's agent."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pydantic import ValidationError

from retia.api.local import PROTOCOLS, PortSpec, UpstreamSpec
from retia.cli.errors import UsageError

_PORT = re.compile(r"(\d{1,5})(?::(\d{1,5}))?(?:/([a-z0-9]+))?")
_UPSTREAM = re.compile(r"([a-z0-9][-a-z0-9.]*):(\d{1,5})(?:=(\d{1,5}))?")
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


def parse_port(text: str) -> PortSpec:
    """``80``, ``80:8080``, ``80/http``, ``80:8080/http``."""
    match = _PORT.fullmatch(text)
    if match is None:
        raise UsageError(f"--port {text!r} is not PORT[:APPPORT][/PROTOCOL], for example 80:8080/http")
    number, app_port, protocol = match.groups()
    if protocol and protocol not in PROTOCOLS:
        raise UsageError(f"--port {text}: protocol is {protocol!r}; it must be one of {', '.join(PROTOCOLS)}")
    try:
        return PortSpec.model_validate(
            {"number": int(number), "app_port": int(app_port or 0), "protocol": protocol or "auto"}
        )
    except ValidationError as error:
        raise UsageError(f"--port {text}: ports are 1 to 65535") from error


def parse_ports(texts: Sequence[str]) -> tuple[PortSpec, ...]:
    ports = tuple(parse_port(text) for text in texts)
    numbers = [port.number for port in ports]
    twice = sorted({number for number in numbers if numbers.count(number) > 1})
    if twice:
        raise UsageError(f"--port {twice[0]} stands here twice")
    return ports


def parse_upstream(text: str) -> UpstreamSpec:
    """``reviews:9080`` or ``reviews:9080=19080``."""
    match = _UPSTREAM.fullmatch(text)
    if match is None:
        raise UsageError(f"--upstream {text!r} is not NAME:PORT[=LOCALPORT], for example reviews:9080=19080")
    host, port, local_port = match.groups()
    try:
        return UpstreamSpec(host=host, port=int(port), local_port=int(local_port or 0))
    except ValidationError as error:
        raise UsageError(f"--upstream {text}: ports are 1 to 65535") from error


def parse_pairs(option: str, texts: Sequence[str]) -> dict[str, str]:
    """``k=v`` pairs; the value may be empty, the key may not."""
    pairs: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise UsageError(f"{option} {text!r} is not KEY=VALUE")
        if key in pairs:
            raise UsageError(f"{option} {key} stands here twice")
        pairs[key] = value
    return pairs


def dns_label(option: str, text: str) -> str:
    if text and not _LABEL.fullmatch(text):
        raise UsageError(
            f"{option} is {text!r}, which is no DNS label; use 1 to 63 lower-case letters, digits and "
            "hyphens, no hyphen at either end"
        )
    return text
