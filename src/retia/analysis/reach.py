"""HTTP rules that no request reaches, because an earlier rule takes all of theirs.

A match block is covered by an earlier one if everything that the earlier one asks is implied by what the
later one asks. Where that cannot be seen (a regular expression against another) it is taken not to be.
"""

from __future__ import annotations

from collections.abc import Iterator

from retia.analysis.world import World
from retia.config.codes import Code, finding
from retia.config.schema.http_match import HTTPMatchRequest
from retia.config.schema.types import StringMatch
from retia.config.schema.virtual_service import HTTPRoute, L4MatchAttributes, TCPRoute
from retia.model.finding import Finding

_EVERYTHING = HTTPMatchRequest()
_ANY = L4MatchAttributes()
_COMPARED = 100
"""Earlier matches that each is compared with; what lies beyond is let pass. Arbitrary."""
_REMEDY = "put the narrower rule first"


def check(world: World) -> Iterator[Finding]:
    for obj in world.kind("VirtualService"):
        for field, message in unreachable(obj.spec.http):
            yield finding(Code.UNREACHABLE_RULE, message, ref=obj.ref, field=f"spec.{field}", remedy=_REMEDY)
        for field, message in unreachable_connections(obj.spec.tcp):
            yield finding(Code.UNREACHABLE_RULE, message, ref=obj.ref, field=f"spec.{field}", remedy=_REMEDY)


def unreachable(rules: tuple[HTTPRoute, ...]) -> Iterator[tuple[str, str]]:
    """Field path and message of each rule, or match block of one, that never holds."""
    earlier: list[tuple[str, HTTPMatchRequest]] = []
    for index, rule in enumerate(rules):
        blocks = rule.match or (_EVERYTHING,)
        hidden = [_covering(earlier, block) for block in blocks]
        if all(hidden):
            takers = ", ".join(dict.fromkeys(where for where in hidden if where))
            yield f"http[{index}]", f"is never reached: {takers} takes all of its requests"
        else:
            for number, where in enumerate(hidden):
                if where:
                    message = f"never holds: {where} takes all of its requests"
                    yield f"http[{index}].match[{number}]", message
        if len(earlier) < _COMPARED:
            earlier += [
                (f"spec.http[{index}].match[{number}]" if rule.match else f"spec.http[{index}]", block)
                for number, block in enumerate(blocks)
            ]


def unreachable_connections(rules: tuple[TCPRoute, ...]) -> Iterator[tuple[str, str]]:
    """Field path and message of each rule behind one for every connection, or with the same matches."""
    taken: dict[L4MatchAttributes, str] = {}
    for index, rule in enumerate(rules):
        takers = [taken.get(block) or taken.get(_ANY, "") for block in rule.match or (_ANY,)]
        if all(takers):
            yield f"tcp[{index}]", f"is never reached: {takers[0]} takes all of its connections"
        for block in rule.match or (_ANY,):
            taken.setdefault(block, f"spec.tcp[{index}]")


def _covering(earlier: list[tuple[str, HTTPMatchRequest]], block: HTTPMatchRequest) -> str:
    return next((where for where, wide in earlier if covers(wide, block)), "")


def takes_everything(block: HTTPMatchRequest) -> bool:
    """Whether it matches every request of every caller."""
    return covers(block, _EVERYTHING)


def covers(wide: HTTPMatchRequest, narrow: HTTPMatchRequest) -> bool:
    """Whether every request that ``narrow`` takes is one that ``wide`` takes."""
    return (
        _uri_covers(wide, narrow)
        and all(
            _text_covers(getattr(wide, field), getattr(narrow, field))
            for field in ("scheme", "method", "authority")
        )
        and wide.port in (None, narrow.port)
        and wide.source_namespace in (None, narrow.source_namespace)
        and set(wide.source_labels) <= set(narrow.source_labels)
        and (not wide.gateways or set(narrow.gateways) <= set(wide.gateways) != set())
        and _map_covers(wide.headers, narrow.headers)
        and _map_covers(wide.query_params, narrow.query_params)
        and set(wide.without_headers) <= set(narrow.without_headers)
    )


def _uri_covers(wide: HTTPMatchRequest, narrow: HTTPMatchRequest) -> bool:
    if wide.uri is None or wide.uri.prefix in ("", "/"):
        return True
    if narrow.uri is None:
        return False
    if wide.ignore_uri_case:
        return _text_covers(_lower(wide.uri), _lower(narrow.uri))
    return not narrow.ignore_uri_case and _text_covers(wide.uri, narrow.uri)


def _lower(match: StringMatch) -> StringMatch:
    if match.regex is not None:
        return match
    return StringMatch(exact=_down(match.exact), prefix=_down(match.prefix))


def _down(text: str | None) -> str | None:
    return None if text is None else text.lower()


def _text_covers(wide: StringMatch | None, narrow: StringMatch | None) -> bool:
    if wide is None:
        return True
    # Compared by parts: the equality of models costs ten times as much, and this runs for each pair of rules.
    if narrow is not None and (wide.exact, wide.prefix, wide.regex) == (
        narrow.exact,
        narrow.prefix,
        narrow.regex,
    ):
        return True
    if narrow is None:
        return False
    if wide.is_present:
        return True
    start = narrow.exact if narrow.exact is not None else narrow.prefix
    return wide.prefix is not None and start is not None and start.startswith(wide.prefix)


def _map_covers(
    wide: tuple[tuple[str, StringMatch], ...], narrow: tuple[tuple[str, StringMatch], ...]
) -> bool:
    asked = dict(narrow)
    return all(key in asked and _text_covers(match, asked[key]) for key, match in wide)
