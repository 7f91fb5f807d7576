"""What a feature says about HTTP filters: which one, where in a chain, and what it does on a route.

Features have a module each; :mod:`retia.translate.http_filters` puts them together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import IntEnum, StrEnum

from retia.model.snapshot import View
from retia.policy.routing.forms import HttpRule

Packed = tuple[str, bytes]
"""A message's type URL and bytes, as :func:`retia.translate.pb.packed` makes them."""


class Place(StrEnum):
    """Where in the mesh a chain stands."""

    OUTBOUND = "outbound"
    """In the caller's sidecar."""
    INBOUND = "inbound"
    """In the called one's sidecar."""
    GATEWAY = "gateway"
    """In an ingress or egress gateway."""


class Order(IntEnum):
    """The order of filters in a chain: find the destination, prove, allow, limit, change."""

    ON_DEMAND = 0
    CORS = 10
    LANE = 20
    AUTHENTICATION = 30
    AUTHORIZATION = 40
    FAULT = 50
    LOCAL_LIMIT = 60
    GLOBAL_LIMIT = 61
    ADMISSION = 62
    CONCURRENCY = 63
    BODY_LIMIT = 70
    GRPC_WEB = 80
    TRANSCODER = 81
    CACHE = 85
    COMPRESSOR = 90
    SESSION = 95
    COUNT = 97
    FORWARD = 98
    ROUTER = 99


@dataclass(frozen=True, slots=True)
class HttpFilter:
    """One filter of a chain."""

    order: Order
    name: str
    config: Packed
    disabled: bool = False
    """Only on routes that have a configuration for it."""


@dataclass(frozen=True, slots=True)
class RouteConfig:
    """What a filter does on one route."""

    name: str
    config: Packed


Feature = Callable[[View, Place], Iterable[HttpFilter]]
PortFeature = Callable[[View, int], Iterable[HttpFilter]]
"""What one port of the workload needs, by its number."""
RouteFeature = Callable[[View, HttpRule], Iterable[RouteConfig]]
