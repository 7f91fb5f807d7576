"""What became of a call, by prediction or in fact; and whether that is what was expected."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from retia.explain import Path
from tests.simulation.case import CallSpec, CaseError

SIGMAS = 5.0


@dataclass
class Seen:
    """A request as the other side saw it."""

    method: str = ""
    path: str = ""
    host: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    server_name: str = ""
    alpn: str = ""


@dataclass
class Outcome:
    """``shares``: label to share of calls (predicted, exact) or to number of calls (real, ``count`` > 0)."""

    status: int = 0
    """0: no HTTP, or no answer."""
    grpc_status: int | None = None
    refused: str = ""
    shares: dict[str, float] = field(default_factory=dict)
    statuses: dict[int, float] = field(default_factory=dict)
    """Where answers differ: status to share."""
    seen: dict[str, Seen] = field(default_factory=dict)
    response_headers: dict[str, str] = field(default_factory=dict)
    body: str = ""
    mirrored: dict[str, float] = field(default_factory=dict)
    attempts: float = 0
    """Requests that the other sides saw, for each call."""
    elapsed_s: float = 0.0
    count: int = 0
    path: Path | None = None
    """Predicted: the explained path."""
    labels: Callable[[str], str] = str
    """From an address to its label."""


def complaints(call: CallSpec, outcome: Outcome) -> list[str]:
    """What differs from the expectation; empty: nothing that this run can see."""
    found: list[str] = []
    for key, wanted in call.expect.items():
        check = CHECKS.get(key)
        if check is None:
            raise CaseError(f"expect has no {key}; it has {', '.join(sorted(CHECKS))}")
        problem = check(wanted, outcome)
        if problem:
            found.append(f"{key}: {problem}")
    if outcome.path is not None and outcome.path.unknown and not call.expect.get("unknown"):
        found.append(f"not interpreted: {'; '.join(f'{u.where}: {u.what}' for u in outcome.path.unknown)}")
    unexpected = outcome.refused and not call.expect.get("refused")
    if unexpected:
        found.append(f"refused: {outcome.refused}")
    return found


def _matches(label: str, wanted: str) -> bool:
    """``reviews`` stands for all versions."""
    return label == wanted or ("/" not in wanted and label.partition("/")[0] == wanted)


def _to(wanted: Any, outcome: Outcome) -> str:
    names = [wanted] if isinstance(wanted, str) else list(wanted)
    strangers = [label for label in outcome.shares if not any(_matches(label, name) for name in names)]
    missing = [name for name in names if not any(_matches(label, name) for label in outcome.shares)]
    if outcome.count and len(names) > 1 and outcome.count < 12 * len(names):
        missing = []  # chance may have left one out
    if strangers or missing or not outcome.shares:
        return f"wanted {', '.join(names)}, went to {_shares(outcome) or 'nobody'}{_because(outcome)}"
    return ""


def _split(wanted: Mapping[str, float], outcome: Outcome) -> str:
    total = sum(wanted.values())
    for name, weight in wanted.items():
        share = sum(part for label, part in outcome.shares.items() if _matches(label, name))
        if not _close(share, weight / total, outcome.count):
            return f"wanted {dict(wanted)}, got {_shares(outcome)}{_because(outcome)}"
    strangers = [label for label in outcome.shares if not any(_matches(label, name) for name in wanted)]
    return f"{', '.join(strangers)} got some too" if strangers else ""


def _close(found: float, share: float, count: int) -> bool:
    if not count:
        return abs(found - share) < 1e-6
    spread = math.sqrt(share * (1 - share) / count)
    return abs(found / count - share) <= SIGMAS * spread + 1 / count


def _shares(outcome: Outcome) -> str:
    return ", ".join(f"{label} {part:.4g}" for label, part in sorted(outcome.shares.items()))


def _because(outcome: Outcome) -> str:
    return (
        f" (status {outcome.status}; {outcome.refused})" if outcome.refused else f" (status {outcome.status})"
    )


def _status(wanted: Any, outcome: Outcome) -> str:
    if isinstance(wanted, Mapping):
        total = sum(wanted.values())
        for status, weight in wanted.items():
            if not _close(outcome.statuses.get(int(status), 0.0), weight / total, outcome.count):
                return f"wanted {dict(wanted)}, got {outcome.statuses}"
        return ""
    return "" if outcome.status == wanted else f"wanted {wanted}, got {outcome.status} {outcome.refused}"


def _grpc_status(wanted: int, outcome: Outcome) -> str:
    return "" if outcome.grpc_status == wanted else f"wanted {wanted}, got {outcome.grpc_status}"


def _of_requests(attribute: str) -> Callable[[Any, Outcome], str]:
    def check(wanted: Any, outcome: Outcome) -> str:
        if not outcome.seen:
            return f"wanted {wanted!r}, but nobody saw the request"
        for label, seen in outcome.seen.items():
            if getattr(seen, attribute) != wanted:
                return f"wanted {wanted!r}, {label} saw {getattr(seen, attribute)!r}"
        return ""

    return check


def _request_headers(wanted: Mapping[str, Any], outcome: Outcome) -> str:
    if not outcome.seen:
        return "nobody saw the request"
    for label, seen in outcome.seen.items():
        problem = _headers_differ(wanted, seen.headers)
        if problem:
            return f"{label} saw {problem}"
    return ""


def _response_headers(wanted: Mapping[str, Any], outcome: Outcome) -> str:
    return _headers_differ(wanted, outcome.response_headers)


def _headers_differ(wanted: Mapping[str, Any], found: Mapping[str, str]) -> str:
    for name, value in wanted.items():
        have = found.get(name.lower())
        if value is None and have is not None:
            return f"{name}: {have!r}, wanted none"
        if value is True and have is None:
            return f"no {name}"
        if value not in (None, True) and have != str(value):
            return f"{name}: {have!r}, wanted {str(value)!r}"
    return ""


def _location(wanted: str, outcome: Outcome) -> str:
    return _headers_differ({"location": wanted}, outcome.response_headers)


def _body(wanted: str, outcome: Outcome) -> str:
    return "" if outcome.body == wanted else f"wanted {wanted!r}, got {outcome.body!r}"


def _refused(wanted: bool, outcome: Outcome) -> str:
    if bool(outcome.refused) is bool(wanted):
        return ""
    return f"the connection was {'closed: ' + outcome.refused if outcome.refused else 'not closed'}"


def _mirror(wanted: Any, outcome: Outcome) -> str:
    shares = wanted if isinstance(wanted, Mapping) else dict.fromkeys(_list(wanted), 100)
    for name, percent in shares.items():
        share = sum(part for label, part in outcome.mirrored.items() if _matches(label, name))
        if not _close(share, percent / 100, outcome.count):
            return f"wanted {dict(shares)} percent, got {outcome.mirrored}"
    extra = [label for label in outcome.mirrored if not any(_matches(label, name) for name in shares)]
    return f"{', '.join(extra)} got copies too" if extra else ""


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value] if value else []


def _attempts(wanted: int, outcome: Outcome) -> str:
    return "" if abs(outcome.attempts - wanted) < 1e-9 else f"wanted {wanted}, got {outcome.attempts:g}"


# -- what only the explained path shows ----------------------------------------------------------------------


def _of_path(check: Callable[[Any, Path, Outcome], str]) -> Callable[[Any, Outcome], str]:
    """A check that real runs pass over: the effect can't be seen from outside."""
    return lambda wanted, outcome: check(wanted, outcome.path, outcome) if outcome.path is not None else ""


def _inner(path: Path) -> Path:
    """Behind an internal listener."""
    while len(path.destinations) == 1 and path.destinations[0].next is not None:
        path = path.destinations[0].next
    return path


def _leaves(path: Path) -> list[Any]:
    return [leaf for d in path.destinations for leaf in (_leaves(d.next) if d.next is not None else [d])]


def _timeout(wanted: Any, path: Path, _outcome: Outcome) -> str:
    return _equal(duration(wanted), path.timeout_s)


def _equal(wanted: Any, found: Any) -> str:
    return "" if wanted == found else f"wanted {wanted!r}, got {found!r}"


def duration(text: Any) -> float:
    """``1.5s``, ``200ms``, ``2m`` or a number of seconds."""
    if isinstance(text, (int, float)):
        return float(text)
    for unit, factor in (("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3600.0)):
        if text.endswith(unit):
            return float(text[: -len(unit)]) * factor
    raise CaseError(f"{text!r} is no duration")


def _fields_of(wanted: Mapping[str, Any], found: Any, times: frozenset[str]) -> str:
    for name, value in wanted.items():
        have = getattr(found, name)
        want = duration(value) if name in times and value is not None else value
        have = list(have) if isinstance(have, tuple) else have
        if isinstance(want, float) and isinstance(have, (int, float)):
            if abs(want - have) > 1e-6:
                return f"{name} is {have!r}, wanted {want!r}"
        elif want != have:
            return f"{name} is {have!r}, wanted {want!r}"
    return ""


def _retries(wanted: Any, path: Path, _outcome: Outcome) -> str:
    if not wanted:
        return "" if path.retry is None else f"wanted none, got {path.retry}"
    if path.retry is None:
        return f"wanted {wanted}, got none"
    return _fields_of(wanted, path.retry, frozenset({"per_try_timeout_s", "backoff_s"}))


def _fault(wanted: Any, path: Path, _outcome: Outcome) -> str:
    if not wanted:
        return "" if path.fault is None else f"wanted none, got {path.fault}"
    if path.fault is None:
        return f"wanted {wanted}, got none"
    return _fields_of(wanted, path.fault, frozenset({"delay_s"}))


def _hash(wanted: Any, path: Path, _outcome: Outcome) -> str:
    return _equal(_list(wanted), list(path.hashed_by))


def _rule(wanted: str, path: Path, _outcome: Outcome) -> str:
    rule = _inner(path).rule or path.rule
    found = f"{rule.object} {rule.field}".strip() if rule is not None else ""
    return _equal(wanted, found)


def _cluster(wanted: Any, path: Path, _outcome: Outcome) -> str:
    return _equal(sorted(_list(wanted)), sorted(d.cluster for d in _leaves(path)))


def _limits(wanted: Mapping[str, int], path: Path, _outcome: Outcome) -> str:
    for leaf in _leaves(path):
        if dict(wanted) != dict(leaf.limits):
            return f"wanted {dict(wanted)}, {leaf.cluster} has {dict(leaf.limits)}"
    return ""


def _outliers(wanted: Mapping[str, Any], path: Path, _outcome: Outcome) -> str:
    for leaf in _leaves(path):
        found = dict(leaf.outliers)
        for name, value in (wanted or {}).items():
            have = found.get(name)
            text = str(value).lower()
            if (None if value is None else text) != have:
                return f"{name} is {have}, wanted {text}"
        if not wanted and found:
            return f"wanted none, got {found}"
    return ""


def _each_leaf(attribute: str) -> Callable[[Any, Path, Outcome], str]:
    def check(wanted: Any, path: Path, _outcome: Outcome) -> str:
        for leaf in _leaves(path):
            found = getattr(leaf, attribute)
            if found != wanted:
                return f"wanted {wanted!r}, {leaf.cluster} has {found!r}"
        return "" if _leaves(path) else "there is no destination"

    return check


def _connect_timeout(wanted: Any, path: Path, _outcome: Outcome) -> str:
    for leaf in _leaves(path):
        if abs(leaf.connect_timeout_s - duration(wanted)) > 1e-6:
            return f"wanted {wanted}, {leaf.cluster} has {leaf.connect_timeout_s:g}s"
    return ""


def _tls(wanted: Any, path: Path, _outcome: Outcome) -> str:
    """``none``, or fields: ``server_name``, ``alpn``, ``names``, ``certificate``, ``trust``."""
    endpoints = [e for leaf in _leaves(path) for e in leaf.endpoints]
    if not endpoints:
        return "there is no endpoint"
    for endpoint in endpoints:
        if wanted == "none" or not wanted:
            if endpoint.tls is not None:
                return f"wanted none, got {endpoint.tls}"
            continue
        if endpoint.tls is None:
            return f"wanted {wanted}, {endpoint.address} is spoken to in plaintext"
        if wanted == "mesh":
            if endpoint.tls.certificate != "default":
                return f"wanted the mesh's, got {endpoint.tls}"
            continue
        problem = _fields_of(wanted, endpoint.tls, frozenset())
        if problem:
            return problem
    return ""


def _endpoints(wanted: Any, path: Path, outcome: Outcome) -> str:
    """Labels (or addresses) of all endpoints; or by priority: ``{0: [reviews/v1], 1: [...]}``."""
    found: dict[int, list[str]] = {}
    for leaf in _leaves(path):
        for endpoint in leaf.endpoints:
            found.setdefault(endpoint.priority, []).append(outcome.labels(endpoint.address))
    if isinstance(wanted, Mapping):
        want = {int(p): sorted(_list(names)) for p, names in wanted.items()}
        return _equal(want, {p: sorted(names) for p, names in found.items()})
    return _equal(sorted(_list(wanted)), sorted(n for names in found.values() for n in names))


def _effects(wanted: Any, path: Path, _outcome: Outcome) -> str:
    """Parts of filter names (``fault``) with, where a mapping, texts that the configuration contains."""
    inner = _inner(path)
    found = [*inner.effects, *(e for d in inner.destinations for e in d.effects)]
    needs = wanted if isinstance(wanted, Mapping) else dict.fromkeys(_list(wanted), "")
    if not needs and found:
        return f"wanted none, got {[e.name for e in found]}"
    for name, texts in needs.items():
        fitting = [e for e in found if name in e.name]
        if not fitting:
            return f"no filter {name} applies; {[e.name for e in found]} do"
        for text in _list(texts):
            if not any(str(text) in e.config for e in fitting):
                return f"{text!r} is not in {[e.config for e in fitting]}"
    return ""


def _unknown(_wanted: Any, path: Path, _outcome: Outcome) -> str:
    return "" if path.unknown else "all was interpreted"


def _chain(wanted: str, path: Path, _outcome: Outcome) -> str:
    return _equal(wanted, path.chain.name if path.chain is not None else "")


CHECKS: dict[str, Callable[[Any, Outcome], str]] = {
    "to": _to,
    "split": _split,
    "status": _status,
    "grpc_status": _grpc_status,
    "path": _of_requests("path"),
    "host": _of_requests("host"),
    "method": _of_requests("method"),
    "request_headers": _request_headers,
    "response_headers": _response_headers,
    "location": _location,
    "body": _body,
    "refused": _refused,
    "mirror": _mirror,
    "attempts": _attempts,
    "timeout": _of_path(_timeout),
    "retries": _of_path(_retries),
    "fault": _of_path(_fault),
    "hash": _of_path(_hash),
    "rule": _of_path(_rule),
    "cluster": _of_path(_cluster),
    "limits": _of_path(_limits),
    "outliers": _of_path(_outliers),
    "balancing": _of_path(_each_leaf("balancing")),
    "codec": _of_path(_each_leaf("codec")),
    "connect_timeout": _of_path(_connect_timeout),
    "tls": _of_path(_tls),
    "endpoints": _of_path(_endpoints),
    "effects": _of_path(_effects),
    "chain": _of_path(_chain),
    "unknown": _of_path(_unknown),
}
