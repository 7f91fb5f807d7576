"""The rules of several VirtualServices for one host, joined into one list.

As at Istio's gateways: objects go by age, each keeps the order of its own rules, and a rule for every request
goes behind all others, so that an older object's default doesn't hide what a younger one says more narrowly.
Of several such rules the oldest holds; that one is hidden is a finding, and so is a match that an older
object has as well. A sidecar joins them in the same way, where Istio's takes the oldest object alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from retia.config.codes import Code, finding
from retia.model.finding import Finding
from retia.policy.routing.forms import Answer, HttpRule, RequestMatch

MAX_MATCHES = 5000
"""Matches of all rules for one host, each of which is a route at the proxy. Arbitrary; Envoy tries them one
after the other, and a virtual host of this many is about 1 MB."""


def in_order(rule: HttpRule) -> HttpRule:
    """The rule without the matches that stand behind one that takes every request."""
    for position, match in enumerate(rule.matches):
        if match.is_everything:
            return replace(rule, matches=rule.matches[: position + 1])
    return rule


def merge(host: str, parts: Iterable[tuple[HttpRule, ...]], findings: list[Finding]) -> tuple[HttpRule, ...]:
    """The rules of the objects for ``host``, the oldest object's first."""
    lists = [part for part in parts if part]
    if len(lists) == 1:
        return _bounded(lists[0], findings)
    narrow: list[HttpRule] = []
    rest: HttpRule | None = None
    seen: dict[RequestMatch, HttpRule] = {}
    for part in lists:
        own: dict[RequestMatch, HttpRule] = {}
        for rule in part:
            first = [match for match in rule.matches if not match.is_everything]
            for match in first:
                own.setdefault(_key(match), rule)
            _note_rivals(host, rule, first, seen, findings)
            if first:
                narrow.append(replace(rule, matches=tuple(first)))
            if rule.takes_everything:
                last = tuple(match for match in rule.matches if match.is_everything)
                if rest is None:
                    rest = replace(rule, matches=last)
                else:
                    _note(host, rule, rest, "takes every other request", findings)
                break
        seen = own | seen
    return _bounded((*narrow, rest) if rest is not None else tuple(narrow), findings)


def _key(match: RequestMatch) -> RequestMatch:
    return replace(match, name="", stat_prefix="")


def _note_rivals(
    host: str,
    rule: HttpRule,
    matches: list[RequestMatch],
    seen: dict[RequestMatch, HttpRule],
    findings: list[Finding],
) -> None:
    for match in matches:
        older = seen.get(_key(match))
        if older is not None:
            _note(host, rule, older, "has the same match", findings)
            return


def _note(host: str, rule: HttpRule, older: HttpRule, why: str, findings: list[Finding]) -> None:
    findings.append(
        finding(
            Code.HOST_CONFLICT,
            f"has no effect for {host}: {older.field} of {older.ref} is older and {why}",
            ref=rule.ref,
            field=rule.field,
            remedy="make the matches differ, or write the rules into one VirtualService",
        )
    )


def _bounded(rules: tuple[HttpRule, ...], findings: list[Finding]) -> tuple[HttpRule, ...]:
    """At most :data:`MAX_MATCHES`; requests that only a rule beyond them would take are answered by 500."""
    count = 0
    for position, rule in enumerate(rules):
        count += max(1, len(rule.matches))
        if count > MAX_MATCHES:
            findings.append(
                finding(
                    Code.LIMIT,
                    f"there are more than {MAX_MATCHES} matches for one host; from here on requests get 500",
                    ref=rule.ref,
                    field=rule.field,
                    remedy="use fewer matches: prefixes or regular expressions instead of lists of paths",
                )
            )
            return (*rules[:position], HttpRule(rule.field, answer=Answer(500), ref=rule.ref))
    return rules
