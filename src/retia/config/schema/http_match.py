"""The conditions of an HTTP rule."""

from __future__ import annotations

from collections.abc import Iterator

from retia.config.codes import Code
from retia.config.schema.base import FrozenMap, Model, Path, Problem
from retia.config.schema.types import (
    DnsLabel,
    Flag,
    GatewayName,
    LabelMap,
    MatchedHeader,
    Port,
    StringMatch,
    Text,
    is_claim,
)

MAX_TEXT = 8192
"""Characters that a match compares: no proxy takes a longer line in its default settings."""


class HTTPMatchRequest(Model):
    """Conditions on a request, all of which must hold."""

    name: Text = ""
    """For people; no effect."""
    uri: StringMatch | None = None
    """The path; ``prefix`` is a prefix of text, not of path segments. Query excluded."""
    scheme: StringMatch | None = None
    method: StringMatch | None = None
    authority: StringMatch | None = None
    headers: FrozenMap[MatchedHeader, StringMatch] = ()
    """An empty match (``{}``): the header is present."""
    port: Port | None = None
    """The port of the service that the client called; absent: any."""
    source_labels: LabelMap = ()
    """Labels that the calling workload must have."""
    gateways: tuple[GatewayName, ...] = ()
    query_params: FrozenMap[Text, StringMatch] = ()
    ignore_uri_case: Flag = False
    """For ``exact`` and ``prefix`` of ``uri``; a ``regex`` says ``(?i)`` itself."""
    without_headers: FrozenMap[MatchedHeader, StringMatch] = ()
    """The header is absent or does not match. An empty match: the header is absent."""
    source_namespace: DnsLabel | None = None
    """The namespace of the calling workload."""
    stat_prefix: Text = ""

    def problems(self) -> Iterator[Problem]:
        yield from self._long()
        for field in ("uri", "scheme", "method", "authority"):
            match: StringMatch | None = getattr(self, field)
            if match is None:
                continue
            if match.is_present:
                yield Problem((field,), "must have one of exact, prefix, regex", Code.MISSING_FIELD)
            elif field != "uri" and match.prefix == "":
                yield _empty(field, "prefix")
        for field, pairs in (
            ("headers", self.headers),
            ("withoutHeaders", self.without_headers),
            ("queryParams", self.query_params),
        ):
            yield from (_empty(field, key, "prefix") for key, match in pairs if match.prefix == "")

    def _long(self) -> Iterator[Problem]:
        named: list[tuple[Path, StringMatch | None]] = [
            ((field,), getattr(self, field)) for field in ("uri", "scheme", "method", "authority")
        ]
        for field, pairs in (
            ("headers", self.headers),
            ("withoutHeaders", self.without_headers),
            ("queryParams", self.query_params),
        ):
            named += [((field, key), match) for key, match in pairs]
        for path, match in named:
            size = max(len(text or "") for text in (match.exact, match.prefix)) if match else 0
            if size > MAX_TEXT:
                yield Problem(path, f"has {size} characters; at most {MAX_TEXT} are allowed", Code.BAD_VALUE)

    @property
    def claims(self) -> tuple[tuple[str, str], ...]:
        """Conditions on claims of a token: pairs of field and key."""
        pairs = [("headers", key) for key, _ in self.headers]
        pairs += [("withoutHeaders", key) for key, _ in self.without_headers]
        return tuple(pair for pair in pairs if is_claim(pair[1]))


def _empty(*path: str) -> Problem:
    return Problem(path, "is empty; it must have at least one character", Code.BAD_VALUE)
