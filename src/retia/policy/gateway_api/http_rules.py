"""HTTPRoute and GRPCRoute as rules of the middle form, one for each match, with its rank.

What can't be done is answered with an error by that rule alone: 500 (of gRPC UNAVAILABLE), as the
specification demands for backends that are wrong and filters that are unknown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from retia.config.replies import NO_DESTINATION
from retia.config.schema.gateway_api.filters import FilterType, PathModifierType
from retia.config.schema.gateway_api.grpc_route import GRPCRouteMatch
from retia.config.schema.gateway_api.http_route import PathMatchType, ValueMatchType
from retia.config.schema.gateway_api.types import CookieLifetime, SessionPersistenceType
from retia.model.mesh import Protocol
from retia.model.objects import ConfigObject
from retia.model.snapshot import View
from retia.policy.gateway_api import ranks
from retia.policy.gateway_api.backends import backend
from retia.policy.gateway_api.listeners import Reason
from retia.policy.gateway_api.names import GRPC_ROUTE
from retia.policy.routing.forms import (
    BROKEN,
    MILLION,
    Answer,
    Cors,
    HeaderEdits,
    HttpRule,
    MatchKind,
    Mirror,
    NamedMatch,
    Redirect,
    RequestMatch,
    Retry,
    Rewrite,
    Session,
    TextMatch,
    WeightedTarget,
)
from retia.policy.routing.resolve import default_retry

BROKEN_HTTP = 500
BROKEN_GRPC = 503
"""gRPC's clients read it as UNAVAILABLE."""
RETRY_ON = "connect-failure,refused-stream,reset"
"""What a rule with ``retry`` tries again besides its ``codes``: failures of the connection (GEP-1731)."""
DEFAULT_PORTS = {"http": 80, "https": 443}
WHOLE_PATH = "^/.*$"


@dataclass(frozen=True, slots=True)
class Place:
    """Where rules are to hold: what redirects need to know."""

    port: int
    scheme: str = "http"
    host: str = ""
    """The one host that requests name; empty: several are possible."""


@dataclass(frozen=True, slots=True)
class Ranked:
    rank: ranks.Rank
    rule: HttpRule


@dataclass(frozen=True, slots=True)
class Trouble:
    """A part of a route that can't be done as written."""

    field: str
    reason: Reason
    dropped: bool = False
    """The whole rule is answered with an error; otherwise only its share."""


@dataclass(slots=True)
class _Reader:
    view: View
    route: ConfigObject
    place: Place
    troubles: list[Trouble] = field(default_factory=list)

    @property
    def is_grpc(self) -> bool:
        return self.route.ref.kind == GRPC_ROUTE

    @property
    def broken_status(self) -> int:
        return BROKEN_GRPC if self.is_grpc else BROKEN_HTTP


def ranked_rules(view: View, route: ConfigObject, place: Place) -> tuple[Ranked, ...]:
    """All rules of a route at a place, in the order in which they are written."""
    reader = _Reader(view, route, place)
    return tuple(each for index in range(len(route.spec.rules)) for each in _ranked(reader, index))


def troubles(view: View, route: ConfigObject) -> tuple[Trouble, ...]:
    """What of a route can't be done; the same wherever it is attached."""
    reader = _Reader(view, route, Place(80))
    for index in range(len(route.spec.rules)):
        for _ in _ranked(reader, index):
            pass
    return tuple(dict.fromkeys(reader.troubles))


def _ranked(reader: _Reader, index: int) -> Iterator[Ranked]:
    rule = reader.route.spec.rules[index]
    at = f"spec.rules[{index}]"
    matches = rule.matches or ((GRPCRouteMatch(),) if reader.is_grpc else ())
    rank = ranks.of_grpc if reader.is_grpc else ranks.of_http
    for number, match in enumerate(matches):
        form = _grpc_match(match) if reader.is_grpc else _http_match(match)
        yield Ranked(
            rank(reader.route, index, number, match), _rule(reader, rule, at, form, _prefix(reader, match))
        )


def _prefix(reader: _Reader, match: Any) -> str:
    """The matched path prefix without a slash at its end; empty for the root and for other matches."""
    if reader.is_grpc or match.path.type is not PathMatchType.PREFIX:
        return ""
    return str(match.path.value.rstrip("/"))


# -- matches -----------------------------------------------------------------------------------------------


def _http_match(match: Any) -> RequestMatch:
    path: TextMatch | None
    value = match.path.value
    if match.path.type is PathMatchType.EXACT:
        path = TextMatch(MatchKind.EXACT, value)
    elif match.path.type is PathMatchType.REGEX:
        path = TextMatch(MatchKind.REGEX, value)
    else:
        value = value.rstrip("/")
        path = TextMatch(MatchKind.SEGMENTS, value) if value else None
    headers = _values(match.headers)
    if match.method is not None:
        headers = (NamedMatch(":method", TextMatch(MatchKind.EXACT, match.method)), *headers)
    return RequestMatch(path=path, headers=headers, query=_values(match.query_params))


def _grpc_match(match: Any) -> RequestMatch:
    return RequestMatch(path=_grpc_path(match.method), headers=_values(match.headers))


def _grpc_path(method: Any) -> TextMatch | None:
    if method is None:
        return None
    service, name = method.service or "", method.method or ""
    if method.type is ValueMatchType.EXACT:
        if service and name:
            return TextMatch(MatchKind.EXACT, f"/{service}/{name}")
        if service:
            return TextMatch(MatchKind.PREFIX, f"/{service}/")
        return TextMatch(MatchKind.REGEX, f"/[^/]+/{re.escape(name)}")
    return TextMatch(MatchKind.REGEX, f"/{_part(service)}/{_part(name)}")


def _part(expression: str) -> str:
    return f"(?:{expression})" if expression else "[^/]+"


def _values(items: Any) -> tuple[NamedMatch, ...]:
    return tuple(
        NamedMatch(
            each.name,
            TextMatch(MatchKind.REGEX if each.type is ValueMatchType.REGEX else MatchKind.EXACT, each.value),
        )
        for each in items
    )


# -- actions -----------------------------------------------------------------------------------------------


def _rule(reader: _Reader, rule: Any, at: str, match: RequestMatch, prefix: str) -> HttpRule:
    base = HttpRule(
        field=at,
        matches=() if match.is_everything else (match,),
        name=rule.name or "",
        ref=reader.route.ref,
    )
    found = _filters(reader, base, rule.filters, at, prefix)
    if found.answer is not None or found.redirect is not None:
        return found
    found = _with_backends(reader, found, rule, at, prefix)
    if found.answer is not None or found.redirect is not None:
        return found
    timeouts = getattr(rule, "timeouts", None)
    request_s, attempt_s = _timeouts(timeouts)
    retry = _retry(reader, getattr(rule, "retry", None), attempt_s)
    if attempt_s and (retry is None or not retry.attempts):
        request_s = min(request_s or attempt_s, attempt_s)
    return replace(found, timeout_s=request_s, retry=retry, session=_session(rule.session_persistence))


def _broken(reader: _Reader, rule: HttpRule, where: str, reason: Reason) -> HttpRule:
    """The rule answers with an error, whatever else it says."""
    reader.troubles.append(Trouble(where, reason, dropped=True))
    return HttpRule(
        field=rule.field,
        matches=rule.matches,
        name=rule.name,
        ref=rule.ref,
        answer=Answer(reader.broken_status),
    )


def _filters(reader: _Reader, rule: HttpRule, filters: Any, at: str, prefix: str) -> HttpRule:
    """The rule with what its filters do."""
    for index, each in enumerate(filters):
        where = f"{at}.filters[{index}]"
        match each.type:
            case FilterType.REQUEST_HEADERS:
                rule = replace(rule, request=edits(each.request_header_modifier))
            case FilterType.RESPONSE_HEADERS:
                rule = replace(rule, response=edits(each.response_header_modifier, response=True))
            case FilterType.MIRROR:
                rule = _mirrored(reader, rule, each.request_mirror, where)
            case FilterType.REDIRECT:
                rule = replace(rule, redirect=_redirect(each.request_redirect, reader.place, prefix))
            case FilterType.REWRITE:
                rule = replace(rule, rewrite=_rewrite(each.url_rewrite, prefix))
            case FilterType.CORS:
                rule = replace(rule, cors=_cors(each.cors))
            case FilterType.EXTENSION:
                ref = each.extension_ref
                reason = Reason(
                    "InvalidKind", f"{ref.kind} of {ref.group or 'core'} is no filter of this mesh"
                )
                return _broken(reader, rule, where, reason)
            case _:
                reason = Reason("UnsupportedValue", f"filter {each.type.value} is not supported")
                return _broken(reader, rule, where, reason)
    return rule


def edits(modifier: Any, *, response: bool = False) -> HeaderEdits:
    """Header changes; a request's ``Host`` is changed as such."""
    kept: dict[str, list[tuple[str, str]]] = {"set": [], "add": []}
    host = ""
    for action in ("set", "add"):
        for header in getattr(modifier, action):
            if header.name.lower() == "host":
                host = host if response else host or header.value
            else:
                # Envoy reads % as the start of a command; here it is text.
                kept[action].append((header.name, header.value.replace("%", "%%")))
    remove = tuple(name for name in modifier.remove if name.lower() != "host" and not name.startswith(":"))
    return HeaderEdits(tuple(kept["set"]), tuple(kept["add"]), remove, host)


def _mirrored(reader: _Reader, rule: HttpRule, mirror: Any, where: str) -> HttpRule:
    found = backend(reader.view, reader.route.ref, mirror.backend_ref)
    if isinstance(found, Reason):
        reader.troubles.append(Trouble(f"{where}.requestMirror.backendRef", found))
        return rule
    share = MILLION
    if mirror.percent is not None:
        share = mirror.percent * (MILLION // 100)
    elif mirror.fraction is not None:
        share = round(mirror.fraction.numerator * MILLION / mirror.fraction.denominator)
    if not share:
        return rule
    return replace(rule, mirrors=(*rule.mirrors, Mirror(found.target, share)))


def _redirect(redirect: Any, place: Place, prefix: str) -> Redirect:
    """Where a redirect leads. A port that goes without saying isn't said; without a scheme the listener's
    port is meant, with one the scheme's own."""
    scheme = redirect.scheme or ""
    port = redirect.port or (DEFAULT_PORTS[scheme] if scheme else place.port)
    shown = 0 if port == DEFAULT_PORTS[scheme or place.scheme] else port
    path, regex, substitution, whole = "", "", "", ""
    if redirect.path is not None:
        if redirect.path.type is PathModifierType.FULL:
            whole = redirect.path.replace_full_path or "/"
        else:
            path, regex, substitution = _new_prefix(prefix, redirect.path.replace_prefix_match)
    return Redirect(
        path=whole,
        prefix=path,
        regex=regex,
        substitution=substitution,
        authority=redirect.hostname or place.host,
        port=shown,
        scheme=scheme,
        code=redirect.status_code,
    )


def _rewrite(rewrite: Any, prefix: str) -> Rewrite:
    host = rewrite.hostname or ""
    if rewrite.path is None:
        return Rewrite(authority=host)
    if rewrite.path.type is PathModifierType.FULL:
        whole = rewrite.path.replace_full_path or "/"
        return Rewrite(regex=WHOLE_PATH, substitution=_literal(whole), authority=host)
    path, regex, substitution = _new_prefix(prefix, rewrite.path.replace_prefix_match)
    return Rewrite(prefix=path, regex=regex, substitution=substitution, authority=host)


def _new_prefix(prefix: str, replacement: str) -> tuple[str, str, str]:
    """A prefix rewrite, or an expression and its substitution where a prefix would leave ``//`` or lose
    ``/``. Slashes at the end of either don't count (the specification's table)."""
    new = replacement.rstrip("/")
    if not new:
        return "", f"^{re.escape(prefix)}/*", "/"
    if not prefix:
        return f"{new}/", "", ""
    return new, "", ""


def _literal(text: str) -> str:
    r"""Text in a substitution, where ``\1`` is a group."""
    return text.replace("\\", "\\\\")


def _cors(cors: Any) -> Cors:
    return Cors(
        origins=tuple(_origin(each) for each in cors.allow_origins),
        methods=tuple(cors.allow_methods),
        headers=tuple(cors.allow_headers),
        expose=tuple(cors.expose_headers),
        max_age_s=cors.max_age,
        credentials=cors.allow_credentials,
        forward_unmatched=False,
    )


def _origin(origin: str) -> TextMatch:
    if origin == "*":
        return TextMatch(MatchKind.REGEX, ".*")
    if "*" not in origin:
        return TextMatch(MatchKind.EXACT, origin)
    return TextMatch(MatchKind.REGEX, re.escape(origin).replace(r"\*", ".+"))


# -- backends ----------------------------------------------------------------------------------------------


def _with_backends(reader: _Reader, rule: HttpRule, source: Any, at: str, prefix: str) -> HttpRule:
    status = reader.broken_status
    wanted = [(i, ref) for i, ref in enumerate(source.backend_refs) if ref.weight]
    for index, ref in enumerate(source.backend_refs):
        if not ref.weight:
            _checked(reader, ref, f"{at}.backendRefs[{index}]")
    if not wanted:
        return replace(rule, answer=Answer(status, code=NO_DESTINATION))
    only = len(wanted) == 1
    targets: list[WeightedTarget] = []
    for index, ref in wanted:
        where = f"{at}.backendRefs[{index}]"
        found = _checked(reader, ref, where)
        if found is None:
            targets.append(WeightedTarget(BROKEN, ref.weight, broken=True))
            continue
        if only:
            lifted = _filters(
                reader,
                replace(rule, request=HeaderEdits(), response=HeaderEdits()),
                ref.filters,
                where,
                prefix,
            )
            if lifted.answer is not None or lifted.redirect is not None:
                return lifted
            rule = replace(
                rule, rewrite=lifted.rewrite or rule.rewrite, mirrors=lifted.mirrors, cors=lifted.cors
            )
            targets.append(WeightedTarget(found, ref.weight, lifted.request, lifted.response))
            continue
        request, response, wrong = _backend_edits(ref.filters)
        if wrong is not None:
            number, reason = wrong
            return _broken(reader, rule, f"{where}.filters[{number}]", reason)
        targets.append(WeightedTarget(found, ref.weight, request, response))
    if all(each.broken for each in targets):
        return replace(rule, answer=Answer(status, code=NO_DESTINATION))
    return replace(rule, targets=tuple(targets), broken_status=status)


def _backend_edits(filters: Any) -> tuple[HeaderEdits, HeaderEdits, tuple[int, Reason] | None]:
    """What filters of one backend of several do: Envoy has header changes and a new host there."""
    request, response = HeaderEdits(), HeaderEdits()
    for index, each in enumerate(filters):
        if each.type is FilterType.REQUEST_HEADERS:
            found = edits(each.request_header_modifier)
            request = replace(found, host=found.host or request.host)
        elif each.type is FilterType.RESPONSE_HEADERS:
            response = edits(each.response_header_modifier, response=True)
        elif each.type is FilterType.REWRITE and each.url_rewrite.path is None:
            request = replace(request, host=each.url_rewrite.hostname or request.host)
        else:
            message = f"filter {each.type.value} needs its backend to be the rule's only one"
            return request, response, (index, Reason("UnsupportedValue", message))
    return request, response, None


def _checked(reader: _Reader, ref: Any, where: str) -> Any:
    """The target of a backend, or ``None`` with a note."""
    found = backend(reader.view, reader.route.ref, ref)
    if isinstance(found, Reason):
        reader.troubles.append(Trouble(where, found))
        return None
    if found.protocol in (Protocol.TCP, Protocol.TLS):
        message = f"{found.target.host} port {found.target.port} is declared {found.protocol}, not HTTP"
        reader.troubles.append(Trouble(where, Reason("UnsupportedProtocol", message)))
        return None
    return found.target


# -- time and sessions -------------------------------------------------------------------------------------


def _timeouts(timeouts: Any) -> tuple[float, float]:
    """Seconds for the request and for one attempt; 0: none."""
    if timeouts is None:
        return 0.0, 0.0
    return float(timeouts.request or 0.0), float(timeouts.backend_request or 0.0)


def _retry(reader: _Reader, retry: Any, attempt_s: float) -> Retry | None:
    default = default_retry(reader.view)
    if retry is None:
        return replace(default, per_try_timeout_s=attempt_s or None) if default is not None else None
    attempts = retry.attempts or (default.attempts if default is not None else 2)
    on = f"{RETRY_ON},retriable-status-codes" if retry.codes else RETRY_ON
    return Retry(
        attempts,
        on,
        status_codes=tuple(retry.codes),
        per_try_timeout_s=attempt_s or None,
        backoff_s=float(retry.backoff) if retry.backoff else None,
    )


SESSION_COOKIE = "retia-session"
"""The cookie's name where the rule gives none."""


def _session(rule: Any) -> Session | None:
    if rule is None:
        return None
    if rule.type is SessionPersistenceType.HEADER:
        return Session(header=rule.header.name)
    cookie = rule.cookie
    permanent = cookie is not None and cookie.lifetime_type is CookieLifetime.PERMANENT
    return Session(
        cookie=(cookie.name if cookie is not None and cookie.name else SESSION_COOKIE),
        path=cookie.path if cookie is not None else "/",
        ttl_s=float(rule.absolute_timeout) if permanent and rule.absolute_timeout else 0.0,
    )
