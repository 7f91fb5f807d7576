"""What a proxy counts so that a rollout's gates can judge: answers by class and time (by the router, see
:mod:`retia.translate.http_filters`), and the status of gRPC calls, which HTTP says nothing about."""

from __future__ import annotations

from collections.abc import Iterable

from envoy.extensions.filters.http.grpc_stats.v3 import config_pb2

from retia.model.snapshot import View
from retia.policy.indexes import uses
from retia.translate import pb
from retia.translate.filters import HttpFilter, Order, Place

GRPC_STATS = "envoy.filters.http.grpc_stats"


def rollout_filters(view: View, place: Place) -> Iterable[HttpFilter]:
    """At the callers of a service, while there is any rollout."""
    if place is not Place.INBOUND and uses(view, "rollouts"):
        yield HttpFilter(Order.COUNT, GRPC_STATS, _GRPC_STATS)


def _grpc_stats() -> config_pb2.FilterConfig:
    config = config_pb2.FilterConfig()
    config.stats_for_all_methods.value = False
    return config


_GRPC_STATS = pb.packed(_grpc_stats())
