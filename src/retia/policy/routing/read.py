"""Parts of a VirtualService's rule, read from the schema into the middle form; nothing is resolved here."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from retia.policy.routing.forms import (
    MILLION,
    Answer,
    Cors,
    Fault,
    HeaderEdits,
    HttpRule,
    MatchKind,
    NamedMatch,
    Redirect,
    RequestMatch,
    Retry,
    Rewrite,
    TextMatch,
)

_PRESENT = TextMatch(MatchKind.PRESENT)
_PROTECTED = ("host", ":authority")
_DEFAULT_PORTS = {"http": 80, "https": 443}
"""What a redirect's location leaves out."""


def share(percent: float) -> int:
    """Percent as millionths."""
    return round(float(percent) * MILLION / 100)


# -- matches -----------------------------------------------------------------------------------------------


def text_match(match: Any) -> TextMatch:
    """A ``StringMatch``; empty: any value."""
    if match is None or match.is_present:
        return _PRESENT
    if match.exact is not None:
        return TextMatch(MatchKind.EXACT, match.exact)
    if match.prefix is not None:
        return TextMatch(MatchKind.PREFIX, match.prefix)
    return TextMatch(MatchKind.REGEX, match.regex)


def request_match(block: Any) -> RequestMatch:
    """What one ``match`` block asks of a request."""
    headers: list[NamedMatch] = []
    for name, match in (
        (":method", block.method),
        (":authority", block.authority),
        (":scheme", block.scheme),
    ):
        if match is not None:
            headers.append(NamedMatch(name, text_match(match)))
    headers += [NamedMatch(name, text_match(match)) for name, match in dict(block.headers or ()).items()]
    headers += [
        NamedMatch(name, text_match(match), invert=True)
        for name, match in dict(block.without_headers or ()).items()
    ]
    path = None if block.uri is None else text_match(block.uri)
    return RequestMatch(
        path=None if path == _PRESENT or path == TextMatch(MatchKind.PREFIX, "/") else path,
        ignore_case=bool(block.ignore_uri_case),
        headers=tuple(sorted(headers, key=lambda h: (h.name, h.invert, h.match.kind, h.match.value))),
        query=tuple(
            NamedMatch(name, text_match(match))
            for name, match in sorted(dict(block.query_params or ()).items())
        ),
        name=block.name or "",
        stat_prefix=block.stat_prefix or "",
    )


def narrow(
    outer: tuple[RequestMatch, ...], inner: tuple[RequestMatch, ...]
) -> tuple[RequestMatch, ...] | None:
    """Requests that both match; ``None``: a block of ``inner`` lies outside all of ``outer``.

    One such block costs the whole rule (Istio reference, VirtualService, ``delegate``).
    """
    if not outer:
        return inner
    if not inner:
        return outer
    found: list[RequestMatch] = []
    for block in inner:
        joined = [both for one in outer if (both := _both(one, block)) is not None]
        if not joined:
            return None
        found += joined
    return tuple(found)


def with_matches(rule: HttpRule, matches: tuple[RequestMatch, ...]) -> HttpRule:
    return replace(rule, matches=matches)


def _both(outer: RequestMatch, inner: RequestMatch) -> RequestMatch | None:
    path = _narrower(outer.path, inner.path)
    if path is False or (outer.path and inner.path and outer.ignore_case != inner.ignore_case):
        return None
    return RequestMatch(
        path=path if isinstance(path, TextMatch) else None,
        ignore_case=(inner if inner.path is not None else outer).ignore_case,
        headers=outer.headers + tuple(h for h in inner.headers if h not in outer.headers),
        query=outer.query + tuple(q for q in inner.query if q not in outer.query),
        name="-".join(name for name in (outer.name, inner.name) if name),
        stat_prefix=inner.stat_prefix or outer.stat_prefix,
    )


def _narrower(outer: TextMatch | None, inner: TextMatch | None) -> TextMatch | bool | None:
    """The path that both allow; ``False``: none, or it can't be said in one match (two expressions)."""
    if outer is None or inner is None or outer == inner:
        return inner if outer is None else outer
    if outer.kind is MatchKind.PREFIX and inner.kind in (MatchKind.PREFIX, MatchKind.EXACT):
        return inner if inner.value.startswith(outer.value) else False
    return False


# -- what happens ------------------------------------------------------------------------------------------


def rewrite(rule: Any) -> Rewrite:
    pattern = rule.uri_regex_rewrite
    if pattern is not None:
        return Rewrite(
            regex=pattern.match or "", substitution=pattern.rewrite or "", authority=rule.authority or ""
        )
    return Rewrite(prefix=rule.uri or "", authority=rule.authority or "")


def redirect(rule: Any, request_port: int, *, tls: bool = False) -> Redirect:
    port = rule.port or 0
    if rule.derive_port is not None and str(rule.derive_port) == "FROM_REQUEST_PORT":
        port = request_port
    if port == _DEFAULT_PORTS[rule.scheme or ("https" if tls else "http")]:
        port = 0
    return Redirect(
        path=rule.uri or "",
        prefix=rule.prefix_rewrite or "",
        authority=rule.authority or "",
        port=port,
        scheme=rule.scheme or "",
        code=rule.redirect_code or 301,
    )


def answer(rule: Any) -> Answer:
    return Answer(rule.status, b"" if rule.body is None else rule.body.content)


def retry(rule: Any, default_on: str) -> Retry | None:
    """``attempts: 0`` (also where it is left out) switches retries off."""
    if rule.attempts <= 0:
        return None
    conditions, codes = retry_conditions(rule.retry_on or default_on)
    ignore = rule.retry_ignore_previous_hosts
    return Retry(
        attempts=rule.attempts,
        on=conditions,
        status_codes=codes,
        per_try_timeout_s=None if rule.per_try_timeout is None else float(rule.per_try_timeout),
        backoff_s=None if rule.backoff is None else float(rule.backoff),
        other_hosts=None if ignore is None else bool(ignore),
        other_localities=bool(rule.retry_remote_localities),
    )


def retry_conditions(text: str) -> tuple[str, tuple[int, ...]]:
    """Envoy's conditions and the statuses of a ``retryOn``."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    codes = tuple(int(word) for word in words if word.isdigit())
    conditions = [word for word in words if not word.isdigit()]
    if codes and "retriable-status-codes" not in conditions:
        conditions.append("retriable-status-codes")
    return ",".join(conditions), codes


def fault_share(part: Any) -> int:
    """The share of requests that a delay or an abort affects; 0 where nobody says one."""
    if part.percentage is not None:
        return share(part.percentage.value)
    percent = getattr(part, "percent", None)
    return share(percent or 0)


def fault(rule: Any) -> Fault | None:
    delay_s, delay_share, status, grpc, abort_share = None, 0, 0, None, 0
    if rule.delay is not None and rule.delay.fixed_delay is not None and fault_share(rule.delay):
        delay_s, delay_share = float(rule.delay.fixed_delay), fault_share(rule.delay)
    if rule.abort is not None and fault_share(rule.abort):
        abort_share = fault_share(rule.abort)
        status = rule.abort.http_status or 0
        grpc = rule.abort.grpc_code
    if not delay_share and not (abort_share and (status or grpc is not None)):
        return None
    return Fault(delay_s, delay_share, status, grpc, abort_share)


def cors(rule: Any) -> Cors:
    """``allowOrigin`` is the old form of ``allowOrigins``, which outweighs it."""
    origins = tuple(text_match(each) for each in rule.allow_origins)
    old = tuple(TextMatch(MatchKind.EXACT, each) for each in rule.allow_origin)
    return Cors(
        origins=origins or old,
        methods=rule.allow_methods,
        headers=rule.allow_headers,
        expose=rule.expose_headers,
        max_age_s=None if rule.max_age is None else int(rule.max_age),
        credentials=None if rule.allow_credentials is None else bool(rule.allow_credentials),
        forward_unmatched=str(rule.unmatched_preflights) != "IGNORE",
    )


def header_edits(headers: Any) -> tuple[HeaderEdits, HeaderEdits, tuple[tuple[str, str], ...]]:
    """Edits of the request, edits of the response, and what Envoy would refuse (name, where)."""
    if headers is None:
        return HeaderEdits(), HeaderEdits(), ()
    dropped: list[tuple[str, str]] = []
    request = _edits(headers.request, "request", dropped)
    response = _edits(headers.response, "response", dropped)
    return request, response, tuple(dropped)


def _edits(part: Any, where: str, dropped: list[tuple[str, str]]) -> HeaderEdits:
    if part is None:
        return HeaderEdits()
    host = ""
    kept: dict[str, list[tuple[str, str]]] = {"set": [], "add": []}
    for action in ("set", "add"):
        for name, value in sorted(dict(getattr(part, action) or ()).items()):
            if name.lower() in _PROTECTED and where == "request":
                # What is set counts before what is added, as in Istio; a request has one host.
                host = value if action == "set" else host or value
            elif name.startswith(":") or name.lower() == "host":
                dropped.append((name, f"{where}.{action}"))
            else:
                kept[action].append((name, value))
    remove = []
    for name in part.remove or ():
        if name.startswith(":") or name.lower() == "host":
            dropped.append((name, f"{where}.remove"))
        else:
            remove.append(name)
    return HeaderEdits(tuple(kept["set"]), tuple(kept["add"]), tuple(sorted(remove)), host)
