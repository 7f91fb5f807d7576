"""Sessions: a cookie or a header of the answer names the endpoint, and brings later requests back to it.

The filter is there once any object asks for it, switched off; a route with a session switches it on. An
endpoint that is gone or unhealthy is replaced by another one. Which of several weighted destinations is taken
is decided anew for each request; the endpoint of the session counts only where its destination was drawn.
"""

from __future__ import annotations

from collections.abc import Iterable

from envoy.extensions.filters.http.stateful_session.v3 import stateful_session_pb2
from envoy.extensions.http.stateful_session.cookie.v3 import cookie_pb2
from envoy.extensions.http.stateful_session.header.v3 import header_pb2

from retia.model.snapshot import View
from retia.policy.indexes import uses
from retia.policy.routing.forms import HttpRule, Session
from retia.translate import pb
from retia.translate.filters import HttpFilter, Order, Place, RouteConfig

SESSION = "envoy.filters.http.stateful_session"
_BY_COOKIE = "envoy.http.stateful_session.cookie"
_BY_HEADER = "envoy.http.stateful_session.header"
_OFF = pb.packed(stateful_session_pb2.StatefulSession())


def filters(view: View, place: Place) -> Iterable[HttpFilter]:
    if place is not Place.INBOUND and uses(view, "sessions"):
        yield HttpFilter(Order.SESSION, SESSION, _OFF, disabled=True)


def of_route(_view: View, rule: HttpRule) -> Iterable[RouteConfig]:
    if rule.session is not None:
        yield RouteConfig(SESSION, pb.packed(_session(rule.session)))


def _session(session: Session) -> stateful_session_pb2.StatefulSessionPerRoute:
    config = stateful_session_pb2.StatefulSessionPerRoute()
    state = config.stateful_session.session_state
    if session.header:
        by_header = header_pb2.HeaderBasedSessionState()
        by_header.name = session.header
        state.name = _BY_HEADER
        pb.pack(state.typed_config, by_header)
        return config
    by_cookie = cookie_pb2.CookieBasedSessionState()
    by_cookie.cookie.name = session.cookie
    by_cookie.cookie.path = session.path
    if session.ttl_s:
        pb.duration(by_cookie.cookie.ttl, session.ttl_s)
    state.name = _BY_COOKIE
    pb.pack(state.typed_config, by_cookie)
    return config
