"""Rules with lanes laid over them.

Before each rule that sends requests somewhere stand copies of it, narrowed to the requests of a lane: one
for each lane that has a version of a destination (the request's ``baggage`` says which lane it is on), and,
at the lane's entry, one that puts requests on the lane. So a lane's requests take the same rule as
everybody's, with its path rewrites, timeouts and the rest, and only their destination differs.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from retia.config.schema.traffic_lane import LaneMatch
from retia.model.resource import Provenance
from retia.model.snapshot import View
from retia.policy.lanes.choose import Lane, lane_labels, lane_subset, lanes
from retia.policy.routing.forms import (
    MILLION,
    HttpRule,
    MatchKind,
    NamedMatch,
    RequestMatch,
    TextMatch,
    WeightedTarget,
)

BAGGAGE = "baggage"
MEMBER = "retia-lane"
_SPECIAL = re.compile(r"([.\\+*?()|\[\]{}^$])")


def _literal(text: str) -> str:
    """``text`` as a part of a regular expression (RE2 refuses some of what :func:`re.escape` writes)."""
    return _SPECIAL.sub(r"\\\1", text)


_BEFORE = r"(?:.*,)?[ \t]*" + MEMBER + r"[ \t]*=[ \t]*"
"""Members are parted by commas; blanks around ``=`` are allowed (W3C Baggage, section 3.3.1)."""


def with_lanes(
    view: View, rule: HttpRule, original: HttpRule, *, gateway: bool
) -> tuple[tuple[HttpRule, ...], tuple[Provenance, ...]]:
    """What stands before ``rule``, and which objects put it there. ``original``: the rule before others
    changed its destinations."""
    if not original.targets:
        return (), ()
    found: list[HttpRule] = []
    who: list[Provenance] = []
    all_lanes = view.query(lanes, "")
    for lane in all_lanes:
        if gateway and not lane.accepts:
            continue
        targets = _targets(view, lane, original, rule)
        if targets is not None:
            found.append(replace(rule, matches=_narrowed(rule, (_on(lane.name),)), targets=targets))
            who.append(Provenance(lane.ref))
    for lane in all_lanes:
        matches = _entering(view, lane, original, gateway=gateway)
        if matches:
            targets = _targets(view, lane, original, rule) or rule.targets
            found.append(replace(rule, matches=_both(rule, matches), targets=targets, lane=lane.name))
            who.append(Provenance(lane.ref, "spec.match"))
    return tuple(found), tuple(who)


def _targets(view: View, lane: Lane, original: HttpRule, rule: HttpRule) -> tuple[WeightedTarget, ...] | None:
    """The rule's destinations with the lane's versions in place of those that it has; ``None``: it has
    none of them."""
    mine = {
        t.target
        for t in original.targets
        if lane_labels(view, (lane.name, t.target.host, t.target.port)) is not None
    }
    if not mine:
        return None
    if len(mine) == len({t.target for t in original.targets}):
        return _merged(lane, original.targets, {(t.host, t.port) for t in mine})
    return _merged(lane, rule.targets, {(t.host, t.port) for t in mine})


def _merged(
    lane: Lane, targets: tuple[WeightedTarget, ...], mine: set[tuple[Any, int]]
) -> tuple[WeightedTarget, ...]:
    merged: dict[WeightedTarget, int] = {}
    for each in targets:
        target = each.target
        if (target.host, target.port) in mine:
            target = replace(target, subset=lane_subset(lane.name))
        key = replace(each, target=target, weight=1)
        merged[key] = merged.get(key, 0) + each.weight
    if len(merged) == 1:
        return tuple(merged)
    return tuple(replace(key, weight=weight) for key, weight in merged.items())


# -- who is on a lane --------------------------------------------------------------------------------------


def _on(lane: str) -> NamedMatch:
    """The request's baggage says that it is on a lane."""
    pattern = f"{_BEFORE}{_literal(lane)}[ \\t]*(?:[;,].*)?"
    return NamedMatch(BAGGAGE, TextMatch(MatchKind.REGEX, pattern))


_ON_NONE = NamedMatch(BAGGAGE, TextMatch(MatchKind.REGEX, f"{_BEFORE}.*"), invert=True)


def _entering(view: View, lane: Lane, rule: HttpRule, *, gateway: bool) -> tuple[RequestMatch, ...]:
    """The requests that are put on the lane here; none: this is not its entry."""
    obj = view.fact("config", *lane.ref.key)
    if obj is None:
        return ()
    if lane.entry is None and not gateway:
        return ()
    if lane.entry is not None and all(t.target.host != lane.entry for t in rule.targets):
        return ()
    # A gateway takes a client's own lane off; where it is believed, and in the mesh, it stays.
    stays = (_ON_NONE,) if not gateway or lane.accepts else ()
    return tuple(_request_match(match, stays) for match in obj.spec.match)


def _request_match(match: LaneMatch, more: tuple[NamedMatch, ...]) -> RequestMatch:
    headers = [NamedMatch(name.lower(), _text(text)) for name, text in match.headers]
    headers += [_cookie(name, text) for name, text in match.cookies]
    if match.user is not None and match.user.header:
        headers.append(NamedMatch(match.user.header.lower(), _any_of(match.user.values)))
    share = 0 if match.percentage is None else max(1, round(match.percentage * MILLION / 100))
    return RequestMatch(headers=(*headers, *more), share=share)


def _text(match: Any) -> TextMatch:
    if match.exact is not None:
        return TextMatch(MatchKind.EXACT, match.exact)
    if match.prefix is not None:
        return TextMatch(MatchKind.PREFIX, match.prefix)
    if match.is_present:
        return TextMatch(MatchKind.PRESENT)
    return TextMatch(MatchKind.REGEX, match.regex)


def _any_of(values: tuple[str, ...]) -> TextMatch:
    if len(values) == 1:
        return TextMatch(MatchKind.EXACT, values[0])
    return TextMatch(MatchKind.REGEX, "|".join(_literal(value) for value in values))


def _cookie(name: str, match: Any) -> NamedMatch:
    """Cookies are ``name=value`` parted by ``;`` (RFC 6265, section 4.2.1)."""
    if match.exact is not None:
        value = _literal(match.exact)
    elif match.prefix is not None:
        value = _literal(match.prefix) + "[^;]*"
    else:
        value = "[^;]*" if match.is_present else f"(?:{match.regex})"
    pattern = rf"(?:.*;)?[ \t]*{_literal(name)}={value}[ \t]*(?:;.*)?"
    return NamedMatch("cookie", TextMatch(MatchKind.REGEX, pattern))


def _narrowed(rule: HttpRule, headers: tuple[NamedMatch, ...]) -> tuple[RequestMatch, ...]:
    return tuple(replace(m, headers=(*m.headers, *headers)) for m in rule.matches or (RequestMatch(),))


def _both(rule: HttpRule, entering: tuple[RequestMatch, ...]) -> tuple[RequestMatch, ...]:
    return tuple(
        replace(m, headers=(*m.headers, *e.headers), share=e.share)
        for m in rule.matches or (RequestMatch(),)
        for e in entering
    )
