"""Envoy's matchers: strings, headers, query parameters, paths, domains.

A matcher gives ``True`` or ``False``, or raises :class:`CannotSayError` where only Envoy knows.
"""

from __future__ import annotations

import re
import re._constants as constants  # type: ignore[import-not-found, unused-ignore]
import re._parser as parser  # type: ignore[import-not-found, unused-ignore]
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl

MAX_MATCHED = 8192
"""Longer texts aren't matched against patterns here."""


class CannotSayError(Exception):
    """The matcher can't be interpreted here; the message says why."""


# -- patterns ----------------------------------------------------------------------------------------------

_POSIX = {
    "[:alpha:]": "a-zA-Z",
    "[:digit:]": "0-9",
    "[:alnum:]": "a-zA-Z0-9",
    "[:upper:]": "A-Z",
    "[:lower:]": "a-z",
    "[:space:]": r"\s",
    "[:word:]": r"\w",
    "[:xdigit:]": "0-9A-Fa-f",
}


@lru_cache(maxsize=1024)
def compiled(pattern: str) -> re.Pattern[str]:
    """An RE2 pattern in Python's engine, where the two agree and Python's can't take for ever."""
    text = pattern
    for name, meaning in _POSIX.items():
        text = text.replace(name, meaning)
    text = text.replace(r"\z", r"\Z").replace("(?s)", "(?s)")
    if re.search(r"\\[pPCQ]", text):
        raise CannotSayError(f"the pattern {pattern!r} uses syntax that only RE2 has")
    try:
        tree = parser.parse(text, re.ASCII)
        found = re.compile(text, re.ASCII)
    except (re.error, OverflowError, RecursionError) as error:
        raise CannotSayError(f"the pattern {pattern!r} is read by RE2 only ({error})") from error
    if _nested(tree, False):
        raise CannotSayError(f"the pattern {pattern!r} repeats repetitions, which only RE2 does in time")
    return found


def _nested(tree: Any, repeated: bool) -> bool:
    """Whether an unbounded repetition stands in another one: then Python may need exponential time."""
    for op, argument in tree:
        inner = repeated
        if op in (constants.MAX_REPEAT, constants.MIN_REPEAT):
            unbounded = argument[1] is constants.MAXREPEAT
            if unbounded and repeated:
                return True
            inner = repeated or unbounded
            if _nested(argument[2], inner):
                return True
        elif op is constants.SUBPATTERN:
            if _nested(argument[3], inner):
                return True
        elif op is constants.BRANCH and any(_nested(branch, inner) for branch in argument[1]):
            return True
    return False


def full_match(pattern: str, text: str) -> bool:
    """Whether the whole of ``text`` matches, as Envoy demands of its patterns."""
    if len(text) > MAX_MATCHED:
        raise CannotSayError(f"a text of {len(text)} characters is matched by Envoy only")
    return compiled(pattern).fullmatch(text) is not None


def regex_replace(pattern: str, substitution: str, text: str) -> str:
    """Every match replaced, ``\\1`` being what the first group took."""
    if len(text) > MAX_MATCHED:
        raise CannotSayError(f"a text of {len(text)} characters is rewritten by Envoy only")

    def one(match: re.Match[str]) -> str:
        return re.sub(
            r"\\([0-9\\])",
            lambda m: "\\" if m[1] == "\\" else (match[int(m[1])] or ""),
            substitution,
        )

    return compiled(pattern).sub(one, text)


# -- strings, headers, parameters --------------------------------------------------------------------------


def text_matches(matcher: Any, text: str) -> bool:
    """A ``StringMatcher``."""
    kind = matcher.WhichOneof("match_pattern")
    if kind == "safe_regex":
        return full_match(matcher.safe_regex.regex, text)
    if kind not in ("exact", "prefix", "suffix", "contains"):
        raise CannotSayError(f"a text matcher of the kind {kind}")
    wanted = getattr(matcher, kind)
    if matcher.ignore_case:
        wanted, text = wanted.lower(), text.lower()
    if kind == "exact":
        return bool(text == wanted)
    if kind == "prefix":
        return text.startswith(wanted)
    return text.endswith(wanted) if kind == "suffix" else wanted in text


def header_matches(matcher: Any, headers: dict[str, str]) -> bool:
    """A ``HeaderMatcher``; a header that isn't there matches no inverted matcher, except of presence."""
    value = headers.get(matcher.name.lower())
    kind = matcher.WhichOneof("header_match_specifier")
    if kind is None or kind == "present_match":
        wanted = matcher.present_match if kind else True
        present = value is not None or matcher.treat_missing_header_as_empty
        return (present == wanted) is not matcher.invert_match
    if value is None:
        if not matcher.treat_missing_header_as_empty:
            return False
        value = ""
    return _header_value_matches(matcher, kind, value) is not matcher.invert_match


def _header_value_matches(matcher: Any, kind: str, value: str) -> bool:
    match kind:
        case "string_match":
            return text_matches(matcher.string_match, value)
        case "range_match":
            if not re.fullmatch(r"-?\d{1,18}", value):
                return False
            return bool(matcher.range_match.start <= int(value) < matcher.range_match.end)
        case "exact_match":
            return bool(value == matcher.exact_match)
        case "prefix_match":
            return value.startswith(matcher.prefix_match)
        case "suffix_match":
            return value.endswith(matcher.suffix_match)
        case "contains_match":
            return matcher.contains_match in value
        case "safe_regex_match":
            return full_match(matcher.safe_regex_match.regex, value)
    raise CannotSayError(f"a header matcher of the kind {kind}")


def parameter_matches(matcher: Any, query: str) -> bool:
    """A ``QueryParameterMatcher``; of several values the first counts."""
    values: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        values.setdefault(name, value)
    kind = matcher.WhichOneof("query_parameter_match_specifier")
    if kind is None or kind == "present_match":
        return (matcher.name in values) == (matcher.present_match if kind else True)
    return matcher.name in values and text_matches(matcher.string_match, values[matcher.name])


def describe_text(matcher: Any) -> str:
    """A ``StringMatcher`` in words."""
    kind = matcher.WhichOneof("match_pattern") or "nothing"
    value = matcher.safe_regex.regex if kind == "safe_regex" else getattr(matcher, kind, "")
    verb = {"exact": "is", "prefix": "begins with", "suffix": "ends with", "safe_regex": "matches"}
    return f"{verb.get(kind, kind)} {value!r}"


# -- routes ------------------------------------------------------------------------------------------------


def why_not(match: Any, request: dict[str, str], *, tls: bool, body: bool = False) -> str:
    """Why a ``RouteMatch`` doesn't take a request; empty: it does, as far as chance isn't asked."""
    del body
    raw = request[":path"].partition("#")[0]
    path, _, query = raw.partition("?")
    reason = _path_why_not(match, path, request)
    if reason:
        return reason
    for header in match.headers:
        if not header_matches(header, request):
            return _header_why_not(header, request)
    for parameter in match.query_parameters:
        if not parameter_matches(parameter, query):
            return f"the query parameter {parameter.name} {_parameter_wish(parameter)}"
    if match.HasField("grpc") and not request.get("content-type", "").startswith("application/grpc"):
        return "it is for gRPC only"
    if match.HasField("tls_context"):
        shown = "TLS" if tls else "no TLS"
        raise CannotSayError(f"the route looks at the client's certificate ({shown})")
    for name in ("dynamic_metadata", "filter_state", "cookies"):
        if name in match.DESCRIPTOR.fields_by_name and len(getattr(match, name)):
            raise CannotSayError(f"the route looks at {name}, which is known at run time only")
    return ""


def _path_why_not(match: Any, path: str, request: dict[str, str]) -> str:
    kind = match.WhichOneof("path_specifier")
    connect = request[":method"] == "CONNECT"
    if kind == "connect_matcher":
        return "" if connect else "it is for CONNECT only"
    if connect and kind not in ("connect_matcher",) and not request.get(":protocol"):
        return "CONNECT has no path"
    if kind == "safe_regex":
        pattern = match.safe_regex.regex
        return "" if full_match(pattern, path) else f"the path {path} does not match {pattern!r} as a whole"
    if kind not in ("prefix", "path", "path_separated_prefix"):
        raise CannotSayError(f"the route matches paths by {kind}")
    wanted = getattr(match, kind)
    given = path
    if match.HasField("case_sensitive") and not match.case_sensitive.value:
        wanted, given = wanted.lower(), path.lower()
    if kind == "path":
        return "" if given == wanted else f"the path {path} is not {getattr(match, kind)}"
    if kind == "prefix":
        return "" if given.startswith(wanted) else f"the path {path} does not begin with {wanted}"
    if given == wanted or given.startswith(f"{wanted}/"):
        return ""
    return f"the path {path} is not below {wanted}"


def _header_why_not(matcher: Any, request: dict[str, str]) -> str:
    value = request.get(matcher.name.lower())
    names = {":method": "the method", ":authority": "the host", ":scheme": "the scheme", ":path": "the path"}
    name = names.get(matcher.name, f"the header {matcher.name}")
    if matcher.WhichOneof("header_match_specifier") == "string_match":
        wish = describe_text(matcher.string_match)
    elif matcher.WhichOneof("header_match_specifier") in (None, "present_match"):
        wanted = matcher.present_match is not matcher.invert_match
        return f"{name} is {'absent' if wanted else 'there'}"
    else:
        wish = f"matches ({matcher.WhichOneof('header_match_specifier')})"
    if value is None:
        return f"{name} is absent; the rule is for requests where it {wish}"
    negation = "must not be so: it " if matcher.invert_match else "the rule wants one that "
    return f"{name} is {value!r}; {negation}{wish}"


def _parameter_wish(matcher: Any) -> str:
    if matcher.WhichOneof("query_parameter_match_specifier") == "string_match":
        return f"is absent, or none that {describe_text(matcher.string_match)}"
    return "is absent" if matcher.present_match else "is there"


# -- domains -----------------------------------------------------------------------------------------------


def best_domain(domains: list[str], host: str) -> tuple[int, str]:
    """The domain that Envoy takes for a host: its place in the list, and why; -1: none.

    Exact, then the longest ``*suffix``, then the longest ``prefix*``, then ``*``.
    """
    host = host.lower()
    lowered = [d.lower() for d in domains]
    if host in lowered:
        return lowered.index(host), "it is the very name"
    suffixes = [d for d in lowered if d.startswith("*") and d != "*" and _covers_suffix(d, host)]
    if suffixes:
        return lowered.index(max(suffixes, key=len)), "the longest wildcard that covers the host"
    prefixes = [d for d in lowered if d.endswith("*") and d != "*" and _covers_prefix(d, host)]
    if prefixes:
        return lowered.index(max(prefixes, key=len)), "the longest beginning that covers the host"
    return (lowered.index("*"), "it takes every host") if "*" in lowered else (-1, "")


def _covers_suffix(domain: str, host: str) -> bool:
    return host.endswith(domain[1:]) and len(host) >= len(domain)


def _covers_prefix(domain: str, host: str) -> bool:
    return host.startswith(domain[:-1]) and len(host) >= len(domain)
