"""``RedisRoute``: commands to a Redis service go where their keys say. retia.dev."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from retia.config.duration import Duration
from retia.config.schema.base import Model, Problem
from retia.config.schema.http_action import Destination
from retia.config.schema.types import DestinationHost, Flag, Percentage, Port, PositiveDuration, Text

DEFAULT_TIMEOUT = Duration(5.0)


class RedisMirror(Model):
    """A copy of the commands, whose answers nobody gets."""

    destination: Destination
    percentage: Percentage = 100.0
    exclude_reads: Flag = False
    """Copy only what changes data."""


class RedisKeyRoute(Model):
    """What becomes of commands whose key begins with a prefix; the longest prefix counts."""

    prefix: Annotated[Text, Field(max_length=1000)] = ""
    """Empty: every key that no other route has."""
    remove_prefix: Flag = False
    """Take the prefix off before the command is sent on."""
    destination: Destination
    read_from: Destination | None = None
    """Where commands go that only read: replicas. Absent: to the destination."""
    mirrors: Annotated[tuple[RedisMirror, ...], Field(max_length=8)] = ()


class RedisRoute(Model):
    """For the callers of one service: all that see it, as its ``VirtualService`` would be."""

    host: DestinationHost
    """The service that programs call; a short name is of the object's namespace."""
    port: Port | None = None
    """Absent: every port of the service that is declared ``tcp``."""
    routes: Annotated[tuple[RedisKeyRoute, ...], Field(min_length=1, max_length=1000)]
    case_insensitive: Flag = False
    """Whether prefixes match keys in any case."""
    timeout: PositiveDuration = DEFAULT_TIMEOUT
    """How long one command may take."""

    def problems(self) -> Iterator[Problem]:
        seen: set[str] = set()
        for index, route in enumerate(self.routes):
            prefix = route.prefix.lower() if self.case_insensitive else route.prefix
            if prefix in seen:
                yield Problem(("routes", index, "prefix"), f"is {route.prefix!r}, as in a route before")
            seen.add(prefix)
