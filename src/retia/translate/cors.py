"""Cross-origin resource sharing: the caller's proxy, or a gateway, answers preflights and marks answers.

The filter is there once any object asks for it, switched off; a route with a policy switches it on.
"""

from __future__ import annotations

from collections.abc import Iterable

from envoy.extensions.filters.http.cors.v3 import cors_pb2

from retia.model.snapshot import View
from retia.policy.indexes import uses
from retia.policy.routing.forms import MILLION, Cors, HttpRule, MatchKind
from retia.translate import pb
from retia.translate.filters import HttpFilter, Order, Place, RouteConfig

CORS = "envoy.filters.http.cors"
_OFF = pb.packed(cors_pb2.Cors())


def filters(view: View, place: Place) -> Iterable[HttpFilter]:
    if place is not Place.INBOUND and uses(view, "cors"):
        yield HttpFilter(Order.CORS, CORS, _OFF, disabled=True)


def of_route(_view: View, rule: HttpRule) -> Iterable[RouteConfig]:
    if rule.cors is not None:
        yield RouteConfig(CORS, pb.packed(_policy(rule.cors)))


def _policy(cors: Cors) -> cors_pb2.CorsPolicy:
    policy = cors_pb2.CorsPolicy()
    for origin in cors.origins:
        matcher = policy.allow_origin_string_match.add()
        if origin.kind is MatchKind.EXACT:
            matcher.exact = origin.value
        elif origin.kind is MatchKind.PREFIX:
            matcher.prefix = origin.value
        else:
            matcher.safe_regex.regex = origin.value
    policy.allow_methods = ",".join(cors.methods)
    policy.allow_headers = ",".join(cors.headers)
    policy.expose_headers = ",".join(cors.expose)
    if cors.max_age_s is not None:
        policy.max_age = str(cors.max_age_s)
    if cors.credentials is not None:
        policy.allow_credentials.value = cors.credentials
    policy.forward_not_matching_preflights.value = cors.forward_unmatched
    pb.millionths(policy.filter_enabled.default_value, MILLION)
    return policy
